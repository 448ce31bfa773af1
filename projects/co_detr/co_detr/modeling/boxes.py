"""Boxes relative to the image, as transformers have them, and in pixels."""

from torch import Tensor
from torchvision.ops import box_convert


def relative_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Center and size in fractions of the image, nothing clipped.

    Args:
        boxes: (..., 4) XYXY in pixels.
        image_size: height and width in pixels.

    Returns:
        (..., 4) cxcywh; inside the image all are in [0, 1].
    """
    return box_convert(boxes, "xyxy", "cxcywh") / _scale(boxes, image_size)


def pixel_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """The inverse of `relative_boxes`."""
    return box_convert(boxes, "cxcywh", "xyxy") * _scale(boxes, image_size)


def image_scales(image_sizes: list[tuple[int, int]], like: Tensor) -> Tensor:
    """(N, 4) width, height, width, height of each image in pixels, on the device of `like`."""
    return like.new_tensor([(w, h, w, h) for h, w in image_sizes])


def _scale(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    return image_scales([image_size], boxes)[0]
