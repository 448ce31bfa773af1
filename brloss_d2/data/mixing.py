"""Training images made of several: mosaics, and objects pasted from other images."""

import copy
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import DatasetCatalog, DatasetFromList, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.data.detection_utils import transform_instance_annotations
from detectron2.structures import BoxMode
from fvcore.transforms.transform import PadTransform

from brloss_d2.data.coco import load_coco_dataset
from brloss_d2.data.mapper import DetectionMapper
from brloss_d2.data.masks import to_rle

_GRAY = 114  # of a mosaic where no image is
_VISIBLE = 0.3  # share of an object that has to be left for it to stay an object
_SCALES = (0.5, 1.0)  # of the image that objects are pasted from
_CHOSEN = 0.5  # share of its objects

Record = dict[str, Any]


class MixingMapper(DetectionMapper):
    """`DetectionMapper` that makes mosaics and pastes objects before it augments the result.

    A mosaic (Bochkovskiy et al., "YOLOv4", 2020) is 2 x 2 images on a canvas of twice the size of
    the first one; each keeps its ratio and touches the center. Pasting (Ghiasi et al., "Simple
    Copy-Paste", CVPR 2021) takes a random half of the objects of another image, with its masks,
    and puts them on this one; what they hide is cut out of the masks below. Random numbers are
    numpy's, as in detectron2's augmentations. Keypoints are not kept.

    Args:
        names: name of the dataset of the other images: `dataloader.train.dataset.names`.
        mosaic: probability of a mosaic, 0..1.
        copy_paste: probability of pasted objects, 0..1. It needs masks, and
            `instance_mask_format="bitmask"`.
        **mapper: arguments of detectron2's `DatasetMapper`.
    """

    def __init__(self, *, names: str, mosaic: float = 0.0, copy_paste: float = 0.0, **mapper: Any):
        super().__init__(**mapper)
        self.names, self.mosaic, self.copy_paste = names, mosaic, copy_paste
        self._records: DatasetFromList | None = None

    def _read(self, record: Record) -> np.ndarray:
        image = super()._read(record)
        if np.random.rand() < self.mosaic:
            image = self._mosaic(record, image)
        if np.random.rand() < self.copy_paste:
            image = self._paste(record, image)
        return image

    def _other(self) -> tuple[Record, np.ndarray]:
        """Return the record and the image of a random one of the dataset."""
        if self._records is None:  # the files of a custom dataset are written before its first use
            self._records = DatasetFromList(_records_of(self.names), copy=False)
        record = copy.deepcopy(self._records[np.random.randint(len(self._records))])
        return record, super()._read(record)

    def _mosaic(self, record: Record, image: np.ndarray) -> np.ndarray:
        """Return a canvas with the image and three others; the record gets all their objects."""
        height, width = image.shape[:2]
        canvas = np.full((2 * height, 2 * width, *image.shape[2:]), _GRAY, image.dtype)
        annotations: list[Record] = []
        for number, (other, pixels) in enumerate(
            [(record, image), *(self._other() for _ in range(3))]
        ):
            new_height, new_width = _fitted(pixels, height, width)
            top = height - (number < 2) * new_height
            left = width - (number % 2 == 0) * new_width
            resize, pad = _place(pixels, new_height, new_width, top, left, canvas)
            end = top + new_height, left + new_width
            canvas[top : end[0], left : end[1]] = resize.apply_image(pixels)
            annotations += _moved(other, T.TransformList([resize, pad]), canvas)
        record.update(annotations=annotations, height=2 * height, width=2 * width)
        return canvas

    def _paste(self, record: Record, image: np.ndarray) -> np.ndarray:
        """Return the image with objects of another one; the record gets them."""
        height, width = image.shape[:2]
        other, pixels = self._other()
        objects = [a for a in other["annotations"] if a.get("segmentation") and not _is_crowd(a)]
        other["annotations"] = [a for a in objects if np.random.rand() < _CHOSEN]
        new_height, new_width = _fitted(pixels, height, width, np.random.uniform(*_SCALES))
        top = np.random.randint(height - new_height + 1)
        left = np.random.randint(width - new_width + 1)
        resize, pad = _place(pixels, new_height, new_width, top, left, image)
        pasted = _moved(other, T.TransformList([resize, pad]), image)
        hidden = np.zeros((height, width), bool)
        for item in pasted:
            hidden |= _decoded(item, image)
        image = np.where(hidden[..., None], pad.apply_image(resize.apply_image(pixels)), image)
        below = [a for a in record["annotations"] if _is_crowd(a) or _cut(a, hidden, image)]
        record["annotations"] = below + pasted
        return image


def _records_of(names: str) -> list[Record]:
    """Return the images of a dataset that the loader has loaded, by its name."""
    if names in DatasetCatalog:
        return DatasetCatalog.get(names)
    metadata = MetadataCatalog.get(names)
    return load_coco_dataset(
        names, metadata.json_file, metadata.image_root, masks=metadata.get("masks")
    )


def _is_crowd(annotation: Record) -> bool:
    return bool(annotation.get("iscrowd", 0))


def _fitted(image: np.ndarray, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
    """Return the sides of an image that is resized to fit into a rectangle."""
    factor = scale * min(height / image.shape[0], width / image.shape[1])
    sides = (max(1, int(side * factor)) for side in image.shape[:2])
    return min(height, next(sides)), min(width, next(sides))


def _place(
    image: np.ndarray, height: int, width: int, top: int, left: int, canvas: np.ndarray
) -> tuple[T.ResizeTransform, PadTransform]:
    """Return how an image gets to its place on a canvas."""
    right, bottom = canvas.shape[1] - left - width, canvas.shape[0] - top - height
    resize = T.ResizeTransform(*image.shape[:2], height, width)
    return resize, PadTransform(left, top, right, bottom, width, height)


def _moved(record: Record, transforms: T.TransformList, canvas: np.ndarray) -> list[Record]:
    """Return the objects of an image at their place on a canvas; masks are polygons or RLE."""
    moved = []
    for annotation in record.get("annotations", ()):
        annotation.pop("keypoints", None)
        found = transform_instance_annotations(annotation, transforms, canvas.shape[:2])
        if isinstance(found.get("segmentation"), np.ndarray):
            found["segmentation"] = _encoded(found["segmentation"])
        moved.append(found)
    return moved


def _encoded(mask: np.ndarray) -> dict[str, Any]:
    return mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))


def _decoded(annotation: Record, image: np.ndarray) -> np.ndarray:
    mask = annotation["segmentation"]
    if isinstance(mask, list):
        mask = [np.asarray(polygon).tolist() for polygon in mask]
    return mask_util.decode(to_rle(mask, *image.shape[:2])).astype(bool)


def _cut(annotation: Record, hidden: np.ndarray, image: np.ndarray) -> bool:
    """Cut hidden pixels out of an object; return whether enough of it is left."""
    mask = _decoded(annotation, image)
    visible = mask & ~hidden
    if visible.sum() < max(1, _VISIBLE * mask.sum()):
        return False
    if (visible != mask).any():
        annotation["segmentation"] = _encoded(visible)
        x, y, w, h = mask_util.toBbox(annotation["segmentation"])
        annotation.update(bbox=[x, y, x + w, y + h], bbox_mode=BoxMode.XYXY_ABS)
    return True
