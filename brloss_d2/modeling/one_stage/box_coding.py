"""Box encodings of one-stage heads, with the interface of detectron2's `Box2BoxTransform`."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from brloss_d2.modeling.box_coding import BoxTransform

_SCALE_CLAMP = math.log(1000.0 / 16)


class DeltaTransform(BoxTransform):
    """`BoxTransform` with widths and heights bounded from below too.

    A predicted side is 1/62.5 to 62.5 times that of its anchor, as in the published detectors.

    Args:
        weights: weights of dx, dy, dw and dh, 1 / standard deviation.
    """

    lowest = -_SCALE_CLAMP

    def __init__(self, weights: Sequence[float]):
        super().__init__(tuple(weights), _SCALE_CLAMP)


class LogDistanceTransform:
    """Logarithms of the distances from a point to the four sides (Kong et al., TIP 2020).

    Distances are in units of the side of the square around the point. Targets are bounded by 1/16
    and 16 of it; predictions are not bounded.
    """

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Encode (P, 4) boxes as logarithms from (P, 4) squares, both XYXY in pixels."""
        center, sides = _center_and_sides(src_boxes)
        start, end = target_boxes.split(2, 1)
        distances = torch.cat([center - start, end - center], 1) / sides
        return distances.clamp(1 / 16, 16).log()

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode (P, 4) logarithms from (P, 4) squares into boxes, XYXY in pixels."""
        distances = deltas.float().exp()
        center, sides = _center_and_sides(boxes.to(distances.dtype))
        to_start, to_end = (distances * sides).split(2, 1)
        return torch.cat([center - to_start, center + to_end], 1)


def _center_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return (P, 2) centers of (P, 4) boxes, and (P, 4) width, height, width, height."""
    start, end = boxes.split(2, 1)
    return 0.5 * (start + end), (end - start).repeat(1, 2)
