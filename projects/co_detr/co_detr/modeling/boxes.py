"""Boxes relative to the image and in pixels."""

import torch
from torch import Tensor

from brloss_d2.utils.devices import upload


def centers_and_sizes(boxes: Tensor) -> Tensor:
    """Convert boxes (..., 4) from XYXY to cxcywh, in any unit."""
    start, end = boxes.split(2, -1)
    return torch.cat([(start + end) / 2, end - start], -1)


def corners(boxes: Tensor) -> Tensor:
    """Convert boxes (..., 4) from cxcywh to XYXY, in any unit."""
    center, size = boxes.split(2, -1)
    half = 0.5 * size
    return torch.cat([center - half, center + half], -1)


def relative_boxes(boxes: Tensor, scales: Tensor) -> Tensor:
    """Convert boxes to centers and sizes in fractions of their images, without clipping.

    Args:
        boxes: (..., 4) XYXY in pixels.
        scales: (..., 4) rows of `image_scales` for the images that the boxes are in.

    Returns:
        (..., 4) cxcywh, in [0, 1] if the box is inside the image.
    """
    return centers_and_sizes(boxes) / scales


def pixel_boxes(boxes: Tensor, scales: Tensor) -> Tensor:
    """Convert cxcywh relative to the image to XYXY in pixels; the inverse of `relative_boxes`."""
    return corners(boxes) * scales


def image_scales(image_sizes: list[tuple[int, int]], like: Tensor) -> Tensor:
    """Width, height, width and height of each image in pixels, (N, 4) on the device of `like`."""
    scales = torch.tensor([(w, h, w, h) for h, w in image_sizes], dtype=like.dtype)
    return upload(scales.view(-1, 4), like.device)
