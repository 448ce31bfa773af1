"""Anchors in the order of the published heads."""

from collections.abc import Sequence

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes
from torch import Tensor


class RatioMajorAnchorGenerator(DefaultAnchorGenerator):
    """detectron2's `DefaultAnchorGenerator` in the anchor order of mmdetection.

    For a cell detectron2 lists the aspect ratios of each size, mmdetection the sizes of each aspect
    ratio. The channels of a head have the same order, so that published weights fit unchanged.
    """

    def generate_cell_anchors(
        self, sizes: Sequence[float], aspect_ratios: Sequence[float]
    ) -> Tensor:
        """Return the (A, 4) anchors of a cell around (0, 0), XYXY in pixels."""
        anchors = super().generate_cell_anchors(sizes, aspect_ratios)
        return anchors.view(len(sizes), len(aspect_ratios), 4).transpose(0, 1).reshape(-1, 4)


class FittedAnchorGenerator(RatioMajorAnchorGenerator):
    """Anchors whose centers divide the image evenly, whatever its size (YOLACT).

    The stride of a level is the side of the image divided by that of the map, 550 / 69 instead of
    8, since maps of unpadded images are rounded up.

    Args:
        sizes: sides of the anchors of each level in pixels.
        aspect_ratios: ratios of height and width of the anchors.
    """

    def __init__(self, *, sizes: Sequence[Sequence[float]], aspect_ratios: Sequence[float]):
        super().__init__(
            sizes=[list(x) for x in sizes],
            aspect_ratios=list(aspect_ratios),
            strides=[1] * len(sizes),
            offset=0.5,
        )

    def forward(self, features: list[Tensor], image_size: Sequence[int]) -> list[Boxes]:
        """Generate the anchors of all levels.

        Args:
            features: feature map (N, C, H, W) of each level.
            image_size: height and width in pixels that the maps cover.

        Returns:
            Anchors of each level in the order row, column, anchor of the cell.
        """
        anchors = []
        for cell, feature in zip(self.cell_anchors, features, strict=True):
            rows, columns = (
                (torch.arange(cells, device=cell.device) + self.offset) * (pixels / cells)
                for cells, pixels in zip(feature.shape[-2:], image_size, strict=True)
            )
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            centers = torch.stack([x, y, x, y], -1)
            anchors.append(Boxes((centers[:, :, None] + cell).reshape(-1, 4)))
        return anchors
