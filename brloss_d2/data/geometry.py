"""Notes on boxes and images of a dataset that are allowed and look like mistakes."""

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.structures import Boxes
from detectron2.structures.boxes import matched_pairwise_iou

from brloss_d2.errors import InputError

Record = dict[str, Any]

_SLACK = 2.0  # pixels that boxes may reach beyond their image, by rounding or counting from 1
_MANY = 0.1  # share of boxes beyond their image from which on another meaning is considered
_ENOUGH = 20  # number of boxes that may be taken for a pattern
_CORNER = 0.55  # share of the sides of the images in which the boxes of smaller copies are
_ELSEWHERE = 0.25  # IoU of a box and the box of its mask below which they do not belong together
_CROWDS = 0.2  # share of crowds from which on they may be objects: some tools mark all RLE so
_UNLABELED = 0.5  # share of the images without annotations from which on they may be unfinished

# What four numbers may be instead of [x, y, width, height], as functions that make them so.
_READINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "corners [x0, y0, x1, y1]": lambda b: np.hstack([b[:, :2], b[:, 2:] - b[:, :2]]),
    "[center x, center y, width, height]": lambda b: np.hstack([b[:, :2] - b[:, 2:] / 2, b[:, 2:]]),
    "[y, x, height, width]": lambda b: b[:, [1, 0, 3, 2]],
}


def geometry_notes(images: Sequence[Record], annotations: Sequence[Record]) -> list[str]:
    """Return sentences about what looks wrong, at most one per kind.

    Args:
        images: checked records of the images of the JSON.
        annotations: records of a `CocoFile`; boxes [x, y, width, height] in pixels. Masks are
            compared with the boxes where there are any.

    Raises:
        InputError: all boxes are between 0 and 1.
    """
    of_id = {image["id"]: image for image in images}
    total = len(annotations)
    crowds = sum(annotation["role"] == "crowd" for annotation in annotations)
    annotations = [annotation for annotation in annotations if annotation["role"] == "object"]
    owners = [of_id[annotation["image_id"]] for annotation in annotations]
    sizes = np.array([(o["width"], o["height"]) for o in owners], float).reshape(-1, 2)
    boxes = np.array([annotation["bbox"] for annotation in annotations], float).reshape(-1, 4)
    count = len(boxes)
    with_mask = [i for i, annotation in enumerate(annotations) if annotation.get("segmentation")]
    masks = np.array([_mask_box(annotations[i]["segmentation"]) for i in with_mask], float)
    found = {
        "of {} boxes are thinner than a pixel": (boxes[:, 2:] < 1).any(1).sum(),
        "of {} boxes repeat another of the same image and class": _repetitions(
            (a["image_id"], a["category_id"], *a["bbox"]) for a in annotations
        ),
        "of {} boxes hardly overlap their mask": np.sum(
            matched_pairwise_iou(_corners(boxes[with_mask]), _corners(masks)).numpy() < _ELSEWHERE
        ),
    }
    notes = _layout_notes(boxes, sizes) if count else []
    if crowds > _CROWDS * total:
        notes.append(
            f"{crowds} of {total} boxes are crowds (iscrowd 1), from which nothing is learned"
        )
    notes += [f"{n} {text.format(count)}" for text, n in found.items() if n]
    repeated = _repetitions(os.path.normpath(image["file_name"]) for image in images)
    if repeated:
        notes.append(
            f"{repeated} of {len(images)} images repeat a file: objects of one record are "
            "background in the other"
        )
    unlabeled = len(images) - len({annotation["image_id"] for annotation in annotations})
    if unlabeled > _UNLABELED * len(images):
        notes.append(
            f"{unlabeled} of {len(images)} images have no objects: all they show counts as "
            "background"
        )
    return notes


def _layout_notes(boxes: np.ndarray, sizes: np.ndarray) -> list[str]:
    """Return sentences about numbers that seem to mean something else than [x, y, width, height].

    Args:
        boxes: boxes as they are read, (G, 4) XYWH.
        sizes: width and height of the image of each box, (G, 2).

    Raises:
        InputError: all boxes are between 0 and 1.
    """
    if boxes.min() >= 0 and boxes.max() <= 1 < sizes.min():
        raise InputError(
            "all boxes are between 0 and 1: expected pixels, [x, y, width, height]. Multiply them "
            "by the width and height of their images."
        )
    notes = []
    beyond = _beyond(boxes, sizes)
    if len(boxes) >= _ENOUGH and beyond.mean() > _MANY:
        notes = [
            f"the boxes look like {meaning}; expected [x, y, width, height]"
            for meaning, read in _READINGS.items()
            if (read(boxes)[:, 2:] > 0).all() and not _beyond(read(boxes), sizes).any()
        ][:1]
    if not notes and beyond.any():
        notes = [f"{beyond.sum()} of {len(boxes)} boxes reach beyond their image, and are cut off"]
    ends = (boxes[:, :2] + boxes[:, 2:]) / sizes
    if len(boxes) >= _ENOUGH and ends.max() < _CORNER:
        notes.append("all boxes are in the upper left: are they percent, or of smaller images?")
    return notes


def _beyond(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return which boxes, (G, 4) XYWH, reach beyond the sizes of their images, (G, 2)."""
    ends = boxes[:, :2] + boxes[:, 2:]
    return ((boxes[:, :2] < -_SLACK) | (ends > sizes + _SLACK)).any(1)


def _repetitions(items: Iterable[Hashable]) -> int:
    counts = Counter(items)
    return counts.total() - len(counts)


def _corners(boxes: np.ndarray) -> Boxes:
    """Return boxes, (G, 4) XYWH, as detectron2's."""
    xywh = boxes.reshape(-1, 4)
    return Boxes(torch.from_numpy(np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]])))


def _mask_box(mask: Any) -> Sequence[float]:
    """Return the box around polygons or compressed RLE, XYWH."""
    if isinstance(mask, dict):
        return mask_util.toBbox(mask).tolist()
    x0, y0 = (min(min(polygon[axis::2]) for polygon in mask) for axis in (0, 1))
    x1, y1 = (max(max(polygon[axis::2]) for polygon in mask) for axis in (0, 1))
    return x0, y0, x1 - x0, y1 - y0
