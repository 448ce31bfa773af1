"""Box encodings of one-stage heads, with the interface of detectron2's `Box2BoxTransform`."""

import math
from collections.abc import Sequence

from detectron2.modeling.box_regression import Box2BoxTransformLinear
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

    def __init__(self) -> None:
        self.transform = Box2BoxTransformLinear(normalize_by_size=True)

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Encode (P, 4) boxes as logarithms from (P, 4) squares, both XYXY in pixels."""
        return self.transform.get_deltas(src_boxes, target_boxes).clamp(1 / 16, 16).log()

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode (P, 4) logarithms from (P, 4) squares into boxes, XYXY in pixels."""
        return self.transform.apply_deltas(deltas.float().exp(), boxes)
