"""The strong augmentation of SSD, with which aLRP Loss and YOLACT were trained."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from fvcore.transforms.transform import CropTransform, NoOpTransform, PadTransform, Transform

from brloss_d2.data.mapper import DetectionMapper


class PhotometricDistortion(T.Augmentation):
    """Random changes of brightness, contrast, saturation and hue (Liu et al., "SSD", ECCV 2016).

    detectron2's `ColorAugSSDTransform`, which needs OpenCV. It draws its numbers when the image is
    changed, rounds to 8 bits after every step and does not permute the channels.

    Args:
        img_format: order of the channels, "RGB" or "BGR".
        hue_delta: largest change of the hue, in steps of 2 degrees.
    """

    def __init__(self, img_format: str = "RGB", hue_delta: int = 9):
        super().__init__()
        self.img_format, self.hue_delta = img_format, hue_delta

    def get_transform(self, image: np.ndarray) -> Transform:
        # Imports all of PointRend and OpenCV: only for those who train with it.
        from detectron2.projects.point_rend import ColorAugSSDTransform

        return ColorAugSSDTransform(img_format=self.img_format, hue_delta=self.hue_delta)


class Expand(T.Augmentation):
    """Placement of the image on a larger canvas, so that objects become smaller.

    Args:
        max_ratio: largest ratio of the sides of canvas and image, >= 1.
        prob: probability of an expansion, 0..1.
        fill: color of the canvas, one number per channel of the image.
    """

    def __init__(
        self, *, max_ratio: float = 4.0, prob: float = 0.5, fill: Sequence[float] = (124, 116, 104)
    ):
        super().__init__()
        self.max_ratio, self.prob, self.fill = max_ratio, prob, tuple(fill)

    def get_transform(self, image: np.ndarray) -> Transform:
        if self._rand_range() >= self.prob:
            return NoOpTransform()
        height, width = image.shape[:2]
        ratio = self._rand_range(1.0, self.max_ratio)
        more_h, more_w = (int(side * ratio) - side for side in (height, width))
        top, left = (int(self._rand_range(0, more + 1)) for more in (more_h, more_w))
        pad = ColorPadTransform(left, top, more_w - left, more_h - top, width, height)
        pad.fill = self.fill
        return pad


class ColorPadTransform(PadTransform):
    """fvcore's `PadTransform` with a color instead of a gray value.

    Attributes:
        fill: color of the padding, one number per channel.
    """

    fill: tuple[float, ...] = (0, 0, 0)

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        height, width = img.shape[:2]
        canvas = np.empty(
            (height + self.y0 + self.y1, width + self.x0 + self.x1, img.shape[2]), img.dtype
        )
        canvas[:] = np.round(self.fill) if np.issubdtype(img.dtype, np.integer) else self.fill
        canvas[self.y0 : self.y0 + height, self.x0 : self.x0 + width] = img
        return canvas


class MinIoUCrop(T.MinIoURandomCrop):
    """detectron2's `MinIoURandomCrop`, but objects with their center cut off are dropped.

    It needs the boxes of the image, which `BoxAwareMapper` provides.
    """

    def get_transform(self, image: np.ndarray, boxes: np.ndarray) -> Transform:
        crop = super().get_transform(image, boxes)
        if isinstance(crop, NoOpTransform):
            return crop
        return CenterCropTransform(crop.x0, crop.y0, crop.w, crop.h)


class CenterCropTransform(CropTransform):
    """A crop after which boxes with their center outside have no area.

    The mapper then drops them, as it drops all boxes without area.
    """

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        boxes = np.asarray(box, dtype=float).reshape(-1, 4)
        center = (boxes[:, :2] + boxes[:, 2:]) / 2 - (self.x0, self.y0)
        inside = ((center > 0) & (center < (self.w, self.h))).all(axis=1)
        return super().apply_box(boxes) * inside[:, None]


class BoxAwareMapper(DetectionMapper):
    """`DetectionMapper` whose augmentations may read the boxes of the image.

    Args:
        min_side: side in pixels of the image file that both sides of an object have to exceed;
            smaller objects count as background.
        **mapper: arguments of detectron2's `DatasetMapper`.
    """

    augmentations: Any

    def __init__(self, *, min_side: float = 0.0, **mapper: Any):
        super().__init__(**mapper)
        self.augmentations = _WithBoxes(self.augmentations)
        self.min_side = min_side

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one dict; see `DetectionMapper`."""
        objects = [a for a in dataset_dict.get("annotations", ()) if not a.get("iscrowd", 0)]
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in objects]
        corners = np.asarray(boxes, dtype=float).reshape(-1, 4)
        large = (corners[:, 2:] - corners[:, :2] > self.min_side).all(axis=1)
        self.augmentations.boxes = corners[large]
        if "annotations" in dataset_dict:
            kept = [a for a, is_large in zip(objects, large, strict=True) if is_large]
            dataset_dict = {**dataset_dict, "annotations": kept}
        return super().__call__(dataset_dict)


class _WithBoxes:
    """Augmentations that get the boxes of the current image, (G, 4) XYXY in pixels, too."""

    def __init__(self, augmentations: T.AugmentationList):
        self.augmentations = augmentations
        self.boxes: np.ndarray | None = None

    def __call__(self, aug_input: T.AugInput) -> Transform:
        aug_input.boxes = self.boxes
        return self.augmentations(aug_input)
