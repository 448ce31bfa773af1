"""Encoding of boxes as deltas from anchors or proposals."""

import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor

from brloss_d2.utils.devices import constant


class BoxTransform(Box2BoxTransform):
    """detectron2's `Box2BoxTransform` with x and y together: a third of the operators, no waits.

    Encoding trusts that the sides of anchors are above 0. The arguments are those of detectron2:
    `weights` of dx, dy, dw and dh, 1 / standard deviation, and `scale_clamp`, the largest logarithm
    of a predicted side over that of its anchor.
    """

    # Smallest logarithm of a predicted side over that of its anchor; None is no bound.
    lowest: float | None = None

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Encode (P, 4) boxes as deltas from (P, 4) anchors, both XYXY in pixels."""
        (center, to_center), (side, to_side) = _center_form(torch.stack([src_boxes, target_boxes]))
        shift, log = constant(tuple(self.weights), center).split(2)
        return torch.cat([shift * (to_center - center) / side, log * (to_side / side).log()], dim=1)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode (P, 4 k) deltas from (P, 4) anchors into k boxes each, XYXY in pixels."""
        deltas = deltas.float().unflatten(1, (deltas.shape[1] // 4, 4))
        center, side = _center_form(boxes.to(deltas.dtype)[:, None])
        shift, log = (deltas / constant(tuple(self.weights), deltas)).split(2, -1)
        log = log.clamp(min=self.lowest, max=self.scale_clamp)
        center, half = shift * side + center, 0.5 * (log.exp() * side)
        outward = constant((-1.0, 1.0), deltas)[:, None]
        corners = torch.addcmul(center[..., None, :], half[..., None, :], outward)
        return corners.flatten(1)


def _center_form(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return (..., 2) centers and (..., 2) sides of (..., 4) boxes."""
    start, end = boxes.split(2, -1)
    side = end - start
    return start + 0.5 * side, side
