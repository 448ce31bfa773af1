"""Boxes relative to the image and in pixels, and boxes of assigned objects."""

import torch
from detectron2.structures import Instances
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


def assigned_targets(
    assigned: Tensor, objects: Instances, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Look up the class and the box of the object that each row was assigned to.

    Args:
        assigned: (R,) int64 index of the object, negative for background.
        objects: objects of the image, with `gt_boxes` and `gt_classes`.
        num_classes: number of classes K.

    Returns:
        (R,) labels in 0..K-1, K for background, and (R, 4) boxes, XYXY in pixels, zeros for
        background.
    """
    foreground = (assigned >= 0).nonzero().squeeze(1)
    labels = torch.full_like(assigned, num_classes)
    labels[foreground] = objects.gt_classes[assigned[foreground]]
    gt_boxes = objects.gt_boxes.tensor.new_zeros((len(assigned), 4))
    gt_boxes[foreground] = objects.gt_boxes.tensor[assigned[foreground]]
    return labels, gt_boxes
