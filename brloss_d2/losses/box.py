"""Elementwise box losses: one value per pair of boxes, no reduction.

Boxes are (P, 4) XYXY in absolute pixels. Decoded boxes carry gradients to the deltas.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.losses.base import ConfiguredModule, check_numbers, check_tensors

# The published GIoU bounds union and enclosing area from below by this many square pixels.
_MIN_AREA = 1e-6


def paired_box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of the i-th box of `a` with the i-th box of `b`.

    Args:
        a: (P, 4) boxes, XYXY in any unit.
        b: (P, 4) boxes, XYXY in the same unit.

    Returns:
        (P,) IoU in [0, 1], 0 for two boxes without area.

    Raises:
        ValueError: If the shapes differ or are not (P, 4).

    Example:
        >>> a, b = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[0.0, 0.0, 2.0, 1.0]])
        >>> paired_box_iou(a, b)
        tensor([0.5000])
    """
    intersection, union = _intersection_and_union(a, b)
    return intersection / union.where(union > 0, 1)


def paired_box_giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU (Rezatofighi et al., CVPR 2019) of the i-th box of `a` with that of `b`.

    Args:
        a: (P, 4) boxes, XYXY in pixels.
        b: (P, 4) boxes, XYXY in pixels.

    Returns:
        (P,) GIoU in [-1, 1].

    Raises:
        ValueError: If the shapes differ or are not (P, 4).

    Example:
        >>> a, b = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[3.0, 0.0, 4.0, 1.0]])
        >>> paired_box_giou(a, b)
        tensor([-0.5000])
    """
    intersection, union = _intersection_and_union(a, b)
    union = union.clamp(min=_MIN_AREA)
    sides = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    enclosing = sides.clamp(min=0).prod(1).clamp(min=_MIN_AREA)
    return intersection / union - (enclosing - union) / enclosing


def _check_pairs(a: Tensor, b: Tensor) -> None:
    check_tensors(a=a, b=b)
    if a.shape != b.shape or a.shape[-1:] != (4,):
        raise ValueError(f"expected two (P, 4) box tensors, got {tuple(a.shape)}, {tuple(b.shape)}")


def _intersection_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    _check_pairs(a, b)
    sides = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    intersection = sides.prod(1)
    areas = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1)
    return intersection, areas - intersection


class BoxLoss(ConfiguredModule, ABC):
    """Base class of the losses per positive.

    Attributes:
        on_deltas: whether encoded deltas (no unit) are compared instead of decoded boxes (pixels).

    Example:
        >>> class SquaredError(BoxLoss):
        ...     def forward(self, pred, target):
        ...         return (pred - target).square().sum(1)
        >>> SquaredError()(torch.ones(1, 4), torch.zeros(1, 4))
        tensor([4.])
    """

    on_deltas = False

    @abstractmethod
    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare (P, 4) predictions with (P, 4) targets: (P,) losses."""


class GIoULoss(BoxLoss):
    """`1 - GIoU` of decoded boxes, in [0, 2] (Rezatofighi et al., CVPR 2019).

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> GIoULoss()(boxes, boxes)
        tensor([0.])
    """

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare (P, 4) predicted with (P, 4) true boxes, XYXY in pixels: (P,) losses."""
        return 1 - paired_box_giou(pred, target)


class SmoothL1Loss(BoxLoss):
    """Smooth L1 distance of the deltas, summed over the four coordinates (Girshick, ICCV 2015).

    Args:
        beta: distance at which the loss turns from quadratic to linear, >= 0; 0 is the L1 distance.

    Raises:
        ValueError: If `beta` is no finite number >= 0.

    Example:
        >>> SmoothL1Loss(beta=0.0)(torch.zeros(1, 4), torch.tensor([[0.5, -0.5, 0.0, 1.0]]))
        tensor([2.])
    """

    on_deltas = True

    def __init__(self, *, beta: float = 0.0):
        super().__init__()
        check_numbers(">= 0", beta=beta)
        self.beta = beta

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare (P, 4) predicted with (P, 4) true deltas: (P,) losses."""
        _check_pairs(pred, target)
        return F.smooth_l1_loss(pred, target, beta=self.beta, reduction="none").sum(-1)
