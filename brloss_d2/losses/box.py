"""Elementwise losses of boxes: one number per pair, no reduction.

Boxes are (P, 4) XYXY in absolute pixels. Decoded boxes carry gradients to the deltas.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The published detectors bound union and enclosing area from below by this many square pixels.
_MIN_AREA = 1e-6


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union (P,) and union (P,) of boxes that correspond."""
    if a.shape != b.shape or a.shape[-1:] != (4,):
        raise ValueError(f"expected two (P, 4) box tensors, got {tuple(a.shape)}, {tuple(b.shape)}")
    sides = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    intersection = sides.prod(1)
    areas = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1)
    union = (areas - intersection).clamp(min=_MIN_AREA)
    return intersection / union, union


def paired_box_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of the i-th box of `a` with the i-th of `b`: (P,) in [0, 1]."""
    return _overlap(a, b)[0]


def paired_box_giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU (Rezatofighi et al., CVPR 2019) of corresponding boxes: (P,) in [-1, 1]."""
    iou, union = _overlap(a, b)
    sides = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    enclosing = sides.clamp(min=0).prod(1).clamp(min=_MIN_AREA)
    return iou - (enclosing - union) / enclosing


class BoxLoss(nn.Module, ABC):
    """A loss per positive, `forward(pred (P, 4), target (P, 4)) -> (P,)`.

    Attributes:
        on_deltas: whether it compares encoded deltas (no unit) instead of decoded boxes (pixels).
    """

    on_deltas = False

    @abstractmethod
    def forward(self, pred: Tensor, target: Tensor) -> Tensor: ...


class GIoULoss(BoxLoss):
    """`1 - GIoU` of decoded boxes, in [0, 2]."""

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return 1 - paired_box_giou(pred, target)


class SmoothL1Loss(BoxLoss):
    """Smooth L1 distance of the deltas, summed over the four coordinates.

    Args:
        beta: where the loss turns from quadratic to linear; 0 is the L1 distance.
    """

    on_deltas = True

    def __init__(self, *, beta: float = 0.0):
        super().__init__()
        if beta < 0:
            raise ValueError(f"beta must be >= 0, got {beta}")
        self.beta = beta

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(pred, target, beta=self.beta, reduction="none").sum(-1)

    def extra_repr(self) -> str:
        return f"beta={self.beta}"
