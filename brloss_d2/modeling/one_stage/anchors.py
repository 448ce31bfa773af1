"""Anchors in the order of the published heads."""

from collections.abc import Sequence

from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from torch import Tensor


class RatioMajorAnchorGenerator(DefaultAnchorGenerator):
    """detectron2's `DefaultAnchorGenerator` with the sizes of a cell next to each other.

    detectron2 goes through the aspect ratios of a size first, mmdetection through the sizes of an
    aspect ratio. The channels of a head follow, so that published weights fit as they are.
    """

    def generate_cell_anchors(
        self, sizes: Sequence[float], aspect_ratios: Sequence[float]
    ) -> Tensor:
        """(A, 4) anchors of a cell around (0, 0), XYXY in pixels."""
        anchors = super().generate_cell_anchors(sizes, aspect_ratios)
        return anchors.view(len(sizes), len(aspect_ratios), 4).transpose(0, 1).reshape(-1, 4)
