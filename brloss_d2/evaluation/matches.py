"""Which detection found which object, from the overlaps that an evaluation has computed."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# As in pycocotools, whose `COCOeval` says when an overlap of exactly the threshold is a match.
_ALMOST_ONE = 1 - 1e-10
_ALL_AREAS = (0.0, 1e10)


@dataclass(frozen=True)
class Matches:
    """Detections that count, matched one to one with objects of their class.

    Detections of crowds, of objects outside the range of areas, and what LVIS forgives are left
    out.

    Attributes:
        labels: (D,), 0..K-1.
        scores: (D,).
        ious: (D,), the overlap with the object found; 0 for a false positive.
        images: (D,), number of the image.
        num_objects: (K,), the objects to be found of each class.
    """

    labels: np.ndarray
    scores: np.ndarray
    ious: np.ndarray
    images: np.ndarray
    num_objects: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """(D,), whether a detection is a true positive."""
        return self.ious > 0

    def of_class(self, label: int) -> "Matches":
        """The detections of one class; `num_objects` stays as it is."""
        return self.subset(self.labels == label)

    def subset(self, keep: np.ndarray) -> "Matches":
        """The detections that a mask or index (D',) names; `num_objects` stays as it is."""
        parts = (self.labels, self.scores, self.ious, self.images)
        return Matches(*(part[keep] for part in parts), self.num_objects)


@dataclass(frozen=True)
class Records:
    """Annotations or detections as columns: cell = image * K + class, area in pixels."""

    cells: np.ndarray
    areas: np.ndarray
    scores: np.ndarray
    crowd: np.ndarray
    forgiven: np.ndarray

    @classmethod
    def of(
        cls,
        annotations: Collection[Mapping[str, Any]],
        images: Mapping[int, int],
        classes: Mapping[int, int],
        *,
        forgiven: Iterable[bool] | None = None,
    ) -> "Records":
        """Read COCO records.

        Args:
            annotations: with `image_id`, `category_id`, `area`, and `score` in detections.
            images: id -> number; records of other images are left out.
            classes: id -> number; records of other classes are left out.
            forgiven: for each record, whether it counts only if it is matched.
        """
        size = len(annotations)

        def column(values: Iterable[Any], dtype: type) -> np.ndarray:
            return np.fromiter(values, dtype, size)

        image = column((images.get(a["image_id"], -1) for a in annotations), int)
        label = column((classes.get(a["category_id"], -1) for a in annotations), int)
        columns = (
            image * len(classes) + label,
            column((a["area"] for a in annotations), float),
            column((a.get("score", 1.0) for a in annotations), float),
            column((a.get("iscrowd", 0) for a in annotations), bool),
            np.zeros(size, bool) if forgiven is None else column(forgiven, bool),
        )
        known = (image >= 0) & (label >= 0)
        return cls(*(values[known] for values in columns))

    def outside(self, area_range: tuple[float, float]) -> np.ndarray:
        """(N,), whether the area is out of a range, whose ends belong to it."""
        return (self.areas < area_range[0]) | (self.areas > area_range[1])

    def take(self, index: np.ndarray) -> "Records":
        """The records of an index or mask."""
        return Records(*(values[index] for values in vars(self).values()))


def match_detections(
    evaluation: Any,
    *,
    iou_threshold: float = 0.5,
    area_range: tuple[float, float] = _ALL_AREAS,
) -> Matches:
    """Match as the COCO protocol does, from the overlaps of an evaluation that has run.

    Args:
        evaluation: `COCOeval` of pycocotools, faster-coco-eval or detectron2, after `evaluate()`.
        iou_threshold: overlap from which an object is found.
        area_range: smallest and largest area, in pixels, of the objects to be found.

    Returns:
        The matches, with the classes in the order of `evaluation.params.catIds`.
    """
    image_ids, class_ids = evaluation.params.imgIds, evaluation.params.catIds
    images, classes = _numbers(image_ids), _numbers(class_ids)
    objects, found = (
        Records.of(api.dataset["annotations"], images, classes)
        for api in (evaluation.cocoGt, evaluation.cocoDt)
    )

    return match_records(
        objects,
        found,
        _overlaps(evaluation.ious, image_ids, class_ids),
        num_classes=len(classes),
        limit=evaluation.params.maxDets[-1],
        iou_threshold=iou_threshold,
        area_range=area_range,
    )


def match_lvis_detections(evaluation: Any) -> Matches:
    """Match as LVIS does: federated, where nobody looked for every category in every image.

    Detections of categories that an image was not searched for do not count; false positives do
    not where it was not searched exhaustively.

    Args:
        evaluation: `lvis.LVISEval` after `evaluate()`.

    Returns:
        The matches, with the classes in the order of `evaluation.params.cat_ids`.
    """
    image_ids, class_ids = evaluation.params.img_ids, evaluation.params.cat_ids
    images, classes = _numbers(image_ids), _numbers(class_ids)
    truth = evaluation.lvis_gt.dataset
    searched = {(image["id"], c) for image in truth["images"] for c in image["neg_category_ids"]}
    searched |= {(a["image_id"], a["category_id"]) for a in truth["annotations"]}
    partly = {i["id"]: frozenset(i["not_exhaustive_category_ids"]) for i in truth["images"]}
    found = [
        record
        for record in evaluation.lvis_dt.dataset["annotations"]
        if (record["image_id"], record["category_id"]) in searched
    ]

    return match_records(
        Records.of(truth["annotations"], images, classes),
        Records.of(
            found,
            images,
            classes,
            forgiven=(record["category_id"] in partly[record["image_id"]] for record in found),
        ),
        _overlaps(evaluation.ious, image_ids, class_ids),
        num_classes=len(classes),
        limit=None,  # over all categories of an image; `LVISResults` has applied it
    )


def nothing_found(annotations: Collection[Mapping[str, Any]], class_ids: Iterable[int]) -> Matches:
    """Return the matches of a detector without detections, which evaluations refuse.

    Args:
        annotations: the ground truth.
        class_ids: the categories, in any order.
    """
    classes = _numbers(sorted(class_ids))
    objects = [
        classes[a["category_id"]]
        for a in annotations
        if a["category_id"] in classes and not a.get("iscrowd", 0)
    ]
    none = np.zeros(0)
    counts = np.bincount(np.array(objects, int), minlength=len(classes))
    return Matches(none.astype(int), none, none, none.astype(int), counts)


def match_records(
    objects: Records,
    found: Records,
    overlaps: Callable[[int], np.ndarray],
    *,
    num_classes: int,
    limit: int | None,
    iou_threshold: float = 0.5,
    area_range: tuple[float, float] = _ALL_AREAS,
) -> Matches:
    """Match detections with objects, cell by cell, the highest score first.

    A detection takes the object that overlaps it most and is not taken yet. One that finds only a
    crowd or an object outside the range of areas does not count, nor does an unmatched one that is
    outside the range or forgiven.

    Args:
        objects: the ground truth; only crowds can be found more than once.
        found: the detections.
        overlaps: cell -> IoU (detections by falling score, at most `limit`; objects).
        num_classes: K.
        limit: detections that count in an image and class.
        iou_threshold: overlap from which an object is found.
        area_range: smallest and largest area of the objects to be found, in pixels.
    """
    found = found.take(np.lexsort((-found.scores, found.cells)))
    rank = np.arange(len(found.cells)) - np.searchsorted(found.cells, found.cells)
    if limit is not None:
        found = found.take(rank < limit)
    objects = objects.take(np.argsort(objects.cells, kind="stable"))
    ignored = objects.crowd | objects.outside(area_range)
    pairs = _overlapping_pairs(objects, found, overlaps, min(iou_threshold, _ALMOST_ONE))
    taken, ious = _greedy(*pairs, ignored=ignored, crowd=objects.crowd, count=len(found.cells))
    matched = taken >= 0
    dropped = ~matched & (found.outside(area_range) | found.forgiven)
    dropped[matched] = ignored[taken[matched]]
    images, labels = np.divmod(found.cells, num_classes)
    counted = np.bincount(objects.cells[~ignored] % num_classes, minlength=num_classes)
    return Matches(labels, found.scores, ious, images, counted).subset(~dropped)


def _numbers(ids: Sequence[int]) -> dict[int, int]:
    return {int(id_): number for number, id_ in enumerate(ids)}


def _overlaps(
    ious: Mapping[tuple[int, int], np.ndarray], image_ids: Sequence[int], class_ids: Sequence[int]
) -> Callable[[int], np.ndarray]:
    """Return cell -> IoU from those of an evaluation, which go by the ids of image and class."""

    def overlaps(cell: int) -> np.ndarray:
        image, label = divmod(cell, len(class_ids))
        return ious[image_ids[image], class_ids[label]]

    return overlaps


def _overlapping_pairs(
    objects: Records, found: Records, overlaps: Callable[[int], np.ndarray], threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return detections, objects and IoU, each (E,), of pairs that overlap enough."""
    shared = np.intersect1d(objects.cells, found.cells)
    starts = zip(
        shared.tolist(),
        np.searchsorted(found.cells, shared).tolist(),
        np.searchsorted(objects.cells, shared).tolist(),
        strict=True,
    )
    parts: list[tuple[np.ndarray, ...]] = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
    for cell, first_found, first_object in starts:
        iou = overlaps(cell)
        rows, columns = np.nonzero(iou >= threshold)
        parts.append((rows + first_found, columns + first_object, iou[rows, columns]))
    detections, matched, ious = (np.concatenate(column) for column in zip(*parts, strict=True))
    return detections, matched, ious


def _greedy(
    detections: np.ndarray,
    objects: np.ndarray,
    ious: np.ndarray,
    *,
    ignored: np.ndarray,
    crowd: np.ndarray,
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the object of each detection (-1: none) and their IoU, both (count,)."""
    # Objects that count come before ignored ones; of equal overlaps the last object wins.
    order = np.lexsort((-objects, -ious, ignored[objects], detections))
    taken, best = np.full(count, -1), np.zeros(count)
    free, last = np.ones(len(ignored), bool), -1
    columns = (column[order].tolist() for column in (detections, objects, ious))
    for detection, object_, iou in zip(*columns, strict=True):
        if detection != last and free[object_]:
            taken[detection], best[detection] = object_, iou
            free[object_], last = crowd[object_], detection
    return taken, best
