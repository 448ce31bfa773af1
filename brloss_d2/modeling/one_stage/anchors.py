"""Anchors in the order of the published heads."""

from collections.abc import Sequence

from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
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
