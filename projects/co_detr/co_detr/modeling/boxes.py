"""Boxes relative to the image, the form of transformers, and boxes in pixels."""

from torch import Tensor
from torchvision.ops import box_convert


def relative_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Convert boxes to centers and sizes in fractions of the image, without clipping.

    Args:
        boxes: (..., 4) XYXY in pixels.
        image_size: height and width in pixels.

    Returns:
        (..., 4) cxcywh, in [0, 1] if the box is inside the image.
    """
    return box_convert(boxes, "xyxy", "cxcywh") / image_scales([image_size], boxes)[0]


def pixel_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Convert cxcywh relative to the image to XYXY in pixels; the inverse of `relative_boxes`."""
    return box_convert(boxes, "cxcywh", "xyxy") * image_scales([image_size], boxes)[0]


def image_scales(image_sizes: list[tuple[int, int]], like: Tensor) -> Tensor:
    """Width, height, width and height of each image in pixels, (N, 4) on the device of `like`."""
    return like.new_tensor([(w, h, w, h) for h, w in image_sizes])
