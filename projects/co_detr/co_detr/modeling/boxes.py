"""Boxes relative to the image and in pixels, and what the host knows moved to a device."""

import torch
from torch import Tensor
from torchvision.ops import box_convert


def relative_boxes(boxes: Tensor, scales: Tensor) -> Tensor:
    """Convert boxes to centers and sizes in fractions of their images, without clipping.

    Args:
        boxes: (..., 4) XYXY in pixels.
        scales: (..., 4) rows of `image_scales` for the images that the boxes are in.

    Returns:
        (..., 4) cxcywh, in [0, 1] if the box is inside the image.
    """
    return box_convert(boxes, "xyxy", "cxcywh") / scales


def pixel_boxes(boxes: Tensor, scales: Tensor) -> Tensor:
    """Convert cxcywh relative to the image to XYXY in pixels; the inverse of `relative_boxes`."""
    return box_convert(boxes, "cxcywh", "xyxy") * scales


def image_scales(image_sizes: list[tuple[int, int]], like: Tensor) -> Tensor:
    """Width, height, width and height of each image in pixels, (N, 4) on the device of `like`."""
    scales = torch.tensor([(w, h, w, h) for h, w in image_sizes], dtype=like.dtype)
    return upload(scales.view(-1, 4), like.device)


def upload(x: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the CPU to a device, without waiting for a GPU."""
    return (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)
