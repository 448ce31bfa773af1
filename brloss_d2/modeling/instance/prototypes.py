"""Masks as combinations of prototypes (Bolya et al., ICCV 2019): the net, the masks, their targets.

Shapes: P masks, C prototypes, maps of h x w cells that cover an image of H x W pixels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d
from torch import Tensor, nn

# Number of pixels of masks that are resized at once, which bounds the memory for many objects.
_PIXELS_AT_ONCE = 2**25
# Logit outside of the box of a mask: probability and gradient are 0, cross-entropy with a 1 is 100.
_OUTSIDE = -100.0
# Number of cells by which a box is enlarged to each side, as published.
_MARGIN = 1.0


class PrototypeNet(nn.Module):
    """3x3 convolutions, one of them after upsampling, and a 1x1 convolution, all with ReLU.

    Args:
        in_channels: number of channels of the features.
        num_prototypes: number of prototypes, C.
        conv_dims: numbers of channels of the 3x3 convolutions; the last one comes after bilinear
            upsampling by two.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_prototypes: int = 32,
        conv_dims: Sequence[int] = (256, 256, 256, 256),
    ):
        super().__init__()
        self.num_prototypes = num_prototypes
        self.convs = nn.ModuleList()
        for out_channels in conv_dims:
            self.convs.append(Conv2d(in_channels, out_channels, 3, padding=1, activation=nn.ReLU()))
            in_channels = out_channels
        self.predictor = Conv2d(in_channels, num_prototypes, 1, activation=nn.ReLU())
        for conv in (*self.convs, self.predictor):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Turn features (N, `in_channels`, h, w) into prototypes (N, C, 2 h, 2 w)."""
        *convs, last = self.convs
        for conv in convs:
            x = conv(x)
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.predictor(last(x))


def prototype_masks(
    prototypes: Tensor, coefficients: Tensor, boxes: Tensor, image_size: tuple[int, int]
) -> Tensor:
    """Combine prototypes to mask logits, cropped to boxes.

    Args:
        prototypes: (C, h, w) prototypes of an image.
        coefficients: (P, C) coefficients of each mask.
        boxes: (P, 4) box of each mask, XYXY in pixels.
        image_size: H and W, the pixels that the prototypes cover.

    Returns:
        (P, h, w) logits; those outside of the box are constants whose sigmoid is 0.
    """
    logits = torch.einsum("pc,chw->phw", coefficients, prototypes)
    inside = cells_inside(boxes, prototypes.shape[-2:], image_size)
    return logits.masked_fill(~inside, _OUTSIDE)


def cells_inside(boxes: Tensor, map_size: Sequence[int], image_size: tuple[int, int]) -> Tensor:
    """Tell the cells that begin in a box, enlarged by one cell to each side, from all others.

    Args:
        boxes: (P, 4) boxes, XYXY in pixels.
        map_size: h and w.
        image_size: H and W.

    Returns:
        (P, h, w) bool, True inside.

    Example:
        >>> box = torch.tensor([[0.3, 0.2, 0.55, 0.5]])  # as a share of width and height
        >>> cells_inside(box, (4, 6), (1, 1)).int()
        tensor([[[0, 1, 1, 1, 1, 0],
                 [0, 1, 1, 1, 1, 0],
                 [0, 1, 1, 1, 1, 0],
                 [0, 0, 0, 0, 0, 0]]], dtype=torch.int32)
    """
    sides = []
    for axis, (cells, pixels) in enumerate(zip(map_size, image_size, strict=True)):
        start, end = (boxes[:, 1 - axis :: 2, None] / pixels * cells).unbind(1)
        cell = torch.arange(cells, device=boxes.device)
        sides.append((cell >= start - _MARGIN) & (cell < end + _MARGIN))
    return sides[0][:, :, None] & sides[1][:, None]


def mask_targets(masks: Tensor, image_size: Sequence[int], map_size: Sequence[int]) -> Tensor:
    """Resize masks to a map: a cell belongs to an object if more than half of it does.

    Args:
        masks: (G, h', w') bool masks of the objects of an image of h' x w' pixels.
        image_size: H and W of the batch, to which the image is padded at right and bottom.
        map_size: h and w.

    Returns:
        (G, h, w) bool, bilinear without antialiasing.
    """
    padding = [0, image_size[1] - masks.shape[2], 0, image_size[0] - masks.shape[1]]
    chunks = masks.split(max(_PIXELS_AT_ONCE // (image_size[0] * image_size[1]), 1))
    padded = (F.pad(chunk.float(), padding)[:, None] for chunk in chunks)
    resized = (F.interpolate(x, tuple(map_size), mode="bilinear")[:, 0] for x in padded)
    return torch.cat([x > 0.5 for x in resized])
