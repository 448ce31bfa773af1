"""Box encodings of one-stage heads, with the interface of detectron2's `Box2BoxTransform`."""

import math
from collections.abc import Sequence

import torch
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformLinear
from torch import Tensor

_SCALE_CLAMP = math.log(1000.0 / 16)


class DeltaTransform:
    """detectron2's `Box2BoxTransform` with widths and heights bounded from below too.

    A predicted side is 1/62.5 to 62.5 times that of its anchor, as in the published detectors.

    Args:
        weights: weights of dx, dy, dw and dh, 1 / standard deviation.
    """

    def __init__(self, weights: Sequence[float]):
        wx, wy, ww, wh = weights
        self.transform = Box2BoxTransform((wx, wy, ww, wh), _SCALE_CLAMP)
        self._lowest = -_SCALE_CLAMP * ww, -_SCALE_CLAMP * wh

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Encode (P, 4) boxes as deltas from (P, 4) anchors, both XYXY in pixels."""
        return self.transform.get_deltas(src_boxes, target_boxes)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode (P, 4) deltas from (P, 4) anchors into boxes, XYXY in pixels."""
        dx, dy, dw, dh = deltas.unbind(1)
        lowest_w, lowest_h = self._lowest
        bounded = torch.stack([dx, dy, dw.clamp(min=lowest_w), dh.clamp(min=lowest_h)], 1)
        return self.transform.apply_deltas(bounded, boxes)


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
