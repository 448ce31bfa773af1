"""Masks of full images: those of objects, and those of detections in bounded memory."""

import torch
import torch.nn.functional as F
from detectron2.structures import BitMasks, Boxes, Instances
from torch import Tensor

from brloss_d2.errors import InputError

# Number of pixels that are resized at once.
_MAX_PIXELS = 2**24


def paste_masks(
    probs: Tensor,
    output_size: tuple[int, int],
    *,
    canvas: tuple[int, int] | None = None,
    image_size: tuple[int, int] | None = None,
    threshold: float = 0.5,
) -> Tensor:
    """Resize masks to an image, bilinearly, and binarize them.

    Args:
        probs: (D, H, W) mask probabilities.
        output_size: height and width of the image in pixels.
        canvas: height and width in pixels of what the masks cover, if that is more than the image;
            they are resized to it, cut to `image_size` and resized again.
        image_size: height and width in pixels of the part of `canvas` that is the image.
        threshold: probability that a pixel of a mask exceeds.

    Returns:
        (D, *output_size) bool.
    """

    def paste(part: Tensor) -> Tensor:
        if canvas is not None and image_size is not None:
            part = F.interpolate(part[None], size=canvas, mode="bilinear")[0]
            part = part[:, : image_size[0], : image_size[1]]
        return F.interpolate(part[None], size=output_size, mode="bilinear")[0] > threshold

    if torch.jit.is_tracing():  # which would keep the number of parts
        return paste(probs)
    pasted = torch.zeros(len(probs), *output_size, dtype=torch.bool, device=probs.device)
    pixels = max(height * width for height, width in (output_size, canvas or (1, 1)))
    step = max(1, _MAX_PIXELS // pixels)
    for start in range(0, len(probs), step):
        pasted[start : start + step] = paste(probs[start : start + step])
    return pasted


def bitmaps(objects: Instances) -> Tensor:
    """Return the (G, H, W) masks of the objects of a training image, bool.

    Raises:
        InputError: If there are objects without masks, or with masks of another kind.
    """
    if len(objects) == 0:  # which then has no `gt_masks`
        return objects.gt_classes.new_zeros(0, *objects.image_size, dtype=torch.bool)
    if not objects.has("gt_masks") or not isinstance(objects.gt_masks, BitMasks):
        raise InputError(
            "The detector trains on masks of pixels, but an image has none: use a dataset with "
            "`segmentation`s, and a mapper with use_instance_mask=True and "
            'instance_mask_format="bitmask".'
        )
    return objects.gt_masks.tensor


def mask_boxes(masks: Tensor) -> Boxes:
    """Compute the boxes around masks, as detectron2's `BitMasks` does, without a loop.

    Args:
        masks: (D, H, W) bool.

    Returns:
        D boxes, XYXY in pixels; all zero around an empty mask.
    """
    edges = []
    for axis in (1, 2):  # columns that a mask meets, then rows
        meets = masks.any(axis).byte()
        first, last = meets.argmax(1), meets.shape[1] - meets.flip(1).argmax(1)
        edges.append((first * meets.amax(1), last * meets.amax(1)))
    (left, right), (top, bottom) = edges
    return Boxes(torch.stack([left, top, right, bottom], 1).float())
