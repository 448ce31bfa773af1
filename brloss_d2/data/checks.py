"""Checks of a COCO-format JSON file and its images before training starts.

detectron2 and pycocotools report the mistakes below as `KeyError`, as `AssertionError` or not at
all, some of them only after hours, when the first evaluation starts. Here each is one sentence.
"""

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes
from detectron2.structures.boxes import matched_pairwise_iou

from brloss_d2.data.coco_file import DROPPED, read_coco
from brloss_d2.data.fields import Record
from brloss_d2.data.file_names import locate_all_images
from brloss_d2.data.masks import mask_box
from brloss_d2.errors import InputError
from brloss_d2.utils.text import first_few, printable

_SLACK = 2.0  # pixels that boxes may reach beyond their image, by rounding or counting from 1
_MANY = 0.1  # share of boxes beyond their image from which on another meaning is considered
_ENOUGH = 20  # number of boxes that may be taken for a pattern
_CORNER = 0.55  # share of the sides of the images in which the boxes of smaller copies are
_ELSEWHERE = 0.25  # IoU of a box and the box of its mask below which they do not belong together
_TINY = 8  # pixels of a side of an image below which boxes may be as small as fractions
_CROWDS = 0.2  # share of crowds from which on they may be objects: some tools mark all RLE so
_UNLABELED = 0.5  # share of the images without annotations from which on they may be unfinished

# What four numbers may be instead of [x, y, width, height], as functions that make them so.
_READINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "corners [x0, y0, x1, y1]": lambda b: np.hstack([b[:, :2], b[:, 2:] - b[:, :2]]),
    "[center x, center y, width, height]": lambda b: np.hstack([b[:, :2] - b[:, 2:] / 2, b[:, 2:]]),
    "[y, x, height, width]": lambda b: b[:, [1, 0, 3, 2]],
}


@dataclass(frozen=True)
class CocoSummary:
    """Contents of a checked COCO-format file.

    Attributes:
        json_file: absolute path of the JSON file.
        image_root: absolute path of the folder that its file names are relative to.
        categories: category id -> name, sorted by id; names are printable and differ.
        images: number of images.
        annotations: number of annotations of any kind.
        crowd: number of annotations that mark a crowd; they are ignored in training and
            evaluation.
        images_without_objects: number of images without any box to train on.
        objects: category id -> number of boxes to train on.
        dropped: kind of `DROPPED` -> number of boxes that are never trained on. The evaluation
            counts them as objects.
        most_objects: largest number of boxes to train on in an image.
        image_sizes: path of each image -> width and height in the file, in pixels.
        has_rle: whether masks are learned and some are RLE, not polygons.
        notes: sentences about what is unusual, for the log.
        annotated: whether the file has a list of annotations.
        where: what messages call the file.
    """

    json_file: str
    image_root: str
    categories: dict[int, str]
    images: int
    annotations: int
    crowd: int
    images_without_objects: int
    objects: dict[int, int]
    dropped: dict[str, int]
    most_objects: int
    image_sizes: dict[str, tuple[int, int]] = field(repr=False)
    has_rle: bool = False
    notes: tuple[str, ...] = ()
    annotated: bool = True
    where: str = ""

    @property
    def num_classes(self) -> int:
        """Number of categories, at least 1."""
        return len(self.categories)

    def counts(self) -> dict[str, int]:
        """Return the numbers of boxes and images by their names in a table."""
        return {
            "boxes": self.boxes,
            **{f"boxes {kind}, dropped": count for kind, count in self.dropped.items()},
            "crowd boxes, ignored": self.crowd,
            "images": self.images,
            "images without objects": self.images_without_objects,
        }

    def noted(self, notes: Sequence[str]) -> "CocoSummary":
        """Return the contents with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    @property
    def boxes(self) -> int:
        """Number of boxes to train on: with area in their image and not a crowd."""
        return sum(self.objects.values())


def check_coco_json(
    json_file: str,
    image_root: str,
    *,
    content: Any = None,
    key: str = "data.train",
    where: str | None = None,
    masks: bool = False,
    unannotated: bool = False,
) -> CocoSummary:
    """Read a COCO-format file, check all of it and the presence of its images.

    Reads the JSON and lists the folders; opens no image. Linear in images and annotations.

    Args:
        json_file: path of the annotations.
        image_root: folder that the file names in the JSON are relative to.
        content: content of the JSON file, if it has been read.
        key: command-line key that named `json_file`; messages refer to it and to `<key>_images`.
        where: what messages call the file; `<key>=<json_file>` by default.
        masks: whether every object needs a mask; without masks `segmentation` is not looked at.
        unannotated: whether the list of annotations may be missing, as in `read_coco`.

    Raises:
        InputError: the file has a mistake; the message names the first offenders of its kind.
    """
    json_file, image_root = os.path.abspath(json_file), os.path.abspath(image_root)
    where = where or f"{key}={printable(json_file)}"
    coco = read_coco(json_file, content=content, masks=masks, where=where, unannotated=unannotated)
    paths = locate_all_images([image["file_name"] for image in coco.images], image_root, key=key)
    sizes: dict[str, tuple[int, int]] = {}
    others = [
        f"id {image['id']} ({image['file_name']})"
        for image, path in zip(coco.images, paths, strict=True)
        if sizes.setdefault(path, size := (image["width"], image["height"])) != size
    ]
    if others:
        raise InputError(
            f"{where}: {len(others)} images name a file that another one names with another size: "
            f"{first_few(others)}."
        )
    try:
        notes = geometry_notes(coco.images, coco.annotations)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if not coco.annotated:
        notes.append("it lists no annotations, so that nothing is evaluated")
    roles = Counter(annotation["role"] for annotation in coco.annotations)
    objects = [a for a in coco.annotations if a["role"] == "object"]
    per_class = Counter(annotation["category_id"] for annotation in objects)
    per_image = Counter(annotation["image_id"] for annotation in objects)
    return CocoSummary(
        json_file=json_file,
        image_root=image_root,
        categories=coco.categories,
        images=len(coco.images),
        annotations=len(coco.annotations),
        crowd=roles["crowd"],
        images_without_objects=len(coco.images) - len(per_image),
        objects={id_: per_class[id_] for id_ in coco.categories},
        dropped={kind: roles[kind] for kind in DROPPED},
        most_objects=max(per_image.values(), default=0),
        image_sizes=sizes,
        has_rle=any(isinstance(a.get("segmentation"), dict) for a in objects),
        notes=(*coco.notes, *notes),
        annotated=coco.annotated,
        where=where,
    )


def geometry_notes(images: Sequence[Record], annotations: Sequence[Record]) -> list[str]:
    """Return sentences about what looks wrong, at most one per kind.

    Args:
        images: checked records of the images of the JSON.
        annotations: records of a `CocoFile`; boxes [x, y, width, height] in pixels. Masks are
            compared with the boxes where there are any.

    Raises:
        InputError: all boxes or all polygons are between 0 and 1.
    """
    of_id = {image["id"]: image for image in images}
    total = len(annotations)
    crowds = sum(annotation["role"] == "crowd" for annotation in annotations)
    unlabeled = len(images) - len({annotation["image_id"] for annotation in annotations})
    _refuse_fractions(annotations)
    annotations = [annotation for annotation in annotations if annotation["role"] == "object"]
    owners = [of_id[annotation["image_id"]] for annotation in annotations]
    sizes = np.array([(o["width"], o["height"]) for o in owners], float).reshape(-1, 2)
    boxes = np.array([annotation["bbox"] for annotation in annotations], float).reshape(-1, 4)
    count = len(boxes)
    places = [(a["image_id"], *box) for a, box in zip(annotations, boxes.round(2), strict=True)]
    labels = [annotation["category_id"] for annotation in annotations]
    repeated = _repetitions(zip(places, labels, strict=True))
    with_mask = [i for i, annotation in enumerate(annotations) if annotation.get("segmentation")]
    masks = np.array([mask_box(annotations[i]["segmentation"]) for i in with_mask], float)
    found = {
        "of {} boxes are thinner than a pixel": (boxes[:, 2:] < 1).any(1).sum(),
        "of {} boxes repeat another of the same image and class": repeated,
        "of {} boxes repeat another of the same image with another class": (
            _repetitions(places) - repeated
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
    files_again = _repetitions(os.path.normpath(image["file_name"]) for image in images)
    if files_again:
        notes.append(
            f"{files_again} of {len(images)} images repeat a file: objects of one record are "
            "background in the other"
        )
    if total and unlabeled > _UNLABELED * len(images):
        notes.append(
            f"{unlabeled} of {len(images)} images have no objects: all they show counts as "
            "background"
        )
    return notes


def _refuse_fractions(annotations: Sequence[Record]) -> None:
    polygons = [
        polygon
        for annotation in annotations
        if annotation["role"] in ("object", "with an empty mask")
        and isinstance(annotation.get("segmentation"), list)
        for polygon in annotation["segmentation"]
    ]
    if polygons and all(0 <= min(polygon) <= max(polygon) <= 1 for polygon in polygons):
        raise InputError(
            "all polygons are between 0 and 1: expected pixels, [x, y, x, y, ...]. Multiply them "
            "by the width and height of their images."
        )


def _layout_notes(boxes: np.ndarray, sizes: np.ndarray) -> list[str]:
    """Return sentences about boxes that seem to mean something else than [x, y, width, height].

    Boxes are (G, 4), and sizes the width and height of the image of each, (G, 2).
    """
    if boxes.min() >= 0 and boxes.max() <= 1 and sizes.min() >= _TINY:
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
        notes = [
            f"{beyond.sum()} of {len(boxes)} boxes reach beyond their image, and are cut off "
            "in training; the evaluation compares with the whole boxes"
        ]
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
