"""Detections matched with ground truth, from a finished evaluation."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from brloss_d2.evaluation.protocols import Evaluation


@dataclass(frozen=True)
class Matches:
    """Detections that count, matched one to one with objects of their class.

    Detections of crowds, of objects outside the range of areas, and those that LVIS ignores are
    left out.

    Attributes:
        labels: class of each detection, (D,), 0..K-1.
        scores: score of each detection, (D,), 0..1.
        ious: IoU with the matched object, (D,), 0..1; 0 for a false positive.
        images: index of the image, (D,).
        num_objects: number of objects to be found per class, (K,).
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
        """Return the detections of one class; `num_objects` stays as it is."""
        return self.subset(self.labels == label)

    def subset(self, keep: np.ndarray) -> "Matches":
        """Return the detections of a mask or index (D',); `num_objects` stays as it is."""
        parts = {name: getattr(self, name)[keep] for name in ("labels", "scores", "ious", "images")}
        return Matches(**parts, num_objects=self.num_objects)


def match_detections(
    evaluation: Evaluation, *, iou_threshold: float = 0.5, area: str = "all"
) -> Matches:
    """Return the matches of an evaluation with their IoU.

    The matching is that of the package that evaluated. No package returns the IoU of a match, so
    the overlaps of the matched pairs are computed again here.

    Args:
        evaluation: result of `evaluate_detections`.
        iou_threshold: IoU from which a detection matches, one of those of the evaluation.
        area: `all`, `small`, `medium` or `large`; other objects and their detections are left out.

    Returns:
        The matches by image, class and falling score; labels are indices of
        `evaluation.class_ids` and images of `evaluation.image_ids`.
    """
    images = {id_: number for number, id_ in enumerate(evaluation.image_ids)}
    labels = {id_: number for number, id_ in enumerate(evaluation.class_ids)}
    rows: list[tuple[int, int, float, int, int]] = []
    num_objects = np.zeros(len(labels), int)
    for cell, threshold in evaluation.cells(iou_threshold, area):
        image, label = images[cell["image_id"]], labels[cell["category_id"]]
        num_objects[label] += np.count_nonzero(np.asarray(cell["gtIgnore"]) == 0)
        columns = (cell[key] for key in ("dtScores", "dtIds"))
        per_threshold = (cell[key][threshold] for key in ("dtMatches", "dtIgnore"))
        rows += [
            (image, label, score, detection, int(object_))
            for score, detection, object_, ignored in zip(*columns, *per_threshold, strict=True)
            if not ignored
        ]
    rows.sort(key=lambda row: (row[0], row[1], -row[2]))
    overlap = _Overlap(evaluation)
    ious = [overlap(found, object_) if object_ else 0.0 for *_, found, object_ in rows]
    image, label, score = np.array([row[:3] for row in rows], float).reshape(-1, 3).T
    return Matches(label.astype(int), score, np.array(ious, float), image.astype(int), num_objects)


def unmatched(annotations: Iterable[Mapping[str, Any]], class_ids: Iterable[int]) -> Matches:
    """Return the matches of a detector without detections, which no package evaluates.

    Args:
        annotations: ground truth in COCO format.
        class_ids: ids of the classes, in any order.
    """
    labels = {id_: number for number, id_ in enumerate(sorted(class_ids))}
    num_objects = np.zeros(len(labels), int)
    for annotation in annotations:
        if annotation["category_id"] in labels and not annotation.get("iscrowd", 0):
            num_objects[labels[annotation["category_id"]]] += 1
    none, integers = np.zeros(0), np.zeros(0, int)
    return Matches(integers, none, none, integers, num_objects)


class _Overlap:
    """The IoU of a detection and an object, by their ids."""

    def __init__(self, evaluation: Evaluation):
        self._boxes = evaluation.task == "bbox"
        self._found = evaluation.found
        self._objects = {a["id"]: a for a in evaluation.truth["annotations"]}
        self._images = {image["id"]: image for image in evaluation.truth["images"]}

    def __call__(self, detection: int, object_: int) -> float:
        pair = self._found[detection], self._objects[object_]
        if self._boxes:
            found, truth = ([record["bbox"]] for record in pair)
        else:
            found, truth = ([self._mask(record)] for record in pair)
        return float(mask_util.iou(found, truth, [0])[0, 0])

    def _mask(self, record: Mapping[str, Any]) -> Any:
        """Return the RLE of polygons, of uncompressed or of compressed RLE."""
        mask, image = record["segmentation"], self._images[record["image_id"]]
        if isinstance(mask, list):
            polygons = mask_util.frPyObjects(mask, image["height"], image["width"])
            return mask_util.merge(polygons)
        if isinstance(mask["counts"], list):
            return mask_util.frPyObjects(mask, *mask["size"])
        return mask
