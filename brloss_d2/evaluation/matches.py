"""Detections matched with ground truth, from a finished evaluation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from brloss_d2.data.masks import to_rle
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
        The matches by image, class and decreasing score; labels are indices of
        `evaluation.class_ids` and images of `evaluation.image_ids`.
    """
    pairs, counted = evaluation.pairs(iou_threshold, area)
    objects = {a["id"]: a for a in evaluation.truth["annotations"]}
    images = {id_: number for number, id_ in enumerate(evaluation.image_ids)}
    labels = {id_: number for number, id_ in enumerate(evaluation.class_ids)}
    found = [evaluation.found[id_] for id_ in pairs]
    image = np.array([images[record["image_id"]] for record in found], int)
    label = np.array([labels[record["category_id"]] for record in found], int)
    score = np.array([record["score"] for record in found], float)
    ious = np.zeros(len(found))
    matched = [
        (record, objects[id_]) for record, id_ in zip(found, pairs.values(), strict=True) if id_
    ]
    ious[np.array(list(pairs.values()), int) > 0] = _overlaps(evaluation, matched)
    order = np.lexsort((np.array(list(pairs)), -score, label, image))
    num_objects = np.bincount(
        [labels[objects[id_]["category_id"]] for id_ in counted], minlength=len(labels)
    )
    return Matches(label[order], score[order], ious[order], image[order], num_objects)


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


def _overlaps(
    evaluation: Evaluation, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> np.ndarray:
    """Return the IoU, (E,), of E pairs of a detection and an object."""
    if evaluation.task == "bbox":
        boxes = np.array([[r["bbox"] for r in pair] for pair in pairs], float).reshape(-1, 2, 4)
        a, b = boxes.transpose(1, 2, 0)
        width = np.minimum(a[0] + a[2], b[0] + b[2]) - np.maximum(a[0], b[0])
        height = np.minimum(a[1] + a[3], b[1] + b[3]) - np.maximum(a[1], b[1])
        shared = width * height
        return shared / (a[2] * a[3] + b[2] * b[3] - shared)
    images = {image["id"]: image for image in evaluation.truth["images"]}
    ious = []
    for pair in pairs:
        image = images[pair[0]["image_id"]]
        masks = [[to_rle(r["segmentation"], image["height"], image["width"])] for r in pair]
        ious.append(mask_util.iou(*masks, [0]))
    return np.array(ious, float).reshape(-1)
