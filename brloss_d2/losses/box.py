"""Elementwise box losses: one value per pair of boxes, no reduction.

Boxes are (P, 4) XYXY in absolute pixels. Decoded boxes carry gradients to the deltas.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.losses.base import ConfiguredModule, check_numbers, check_tensors
from brloss_d2.utils.devices import constant

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
    intersection, union, _ = _areas(a, b)
    return intersection / union.masked_fill(union <= 0, 1)


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
    intersection, union, enclosing = _areas(a, b)
    union, enclosing = areas = torch.stack([union, enclosing]).clamp(min=_MIN_AREA)
    overlap, gap = torch.stack([intersection, enclosing - union]) / areas
    return overlap - gap


def _check_pairs(a: Tensor, b: Tensor) -> None:
    check_tensors(a=a, b=b)
    if a.shape != b.shape or a.shape[-1:] != (4,):
        raise ValueError(f"expected two (P, 4) box tensors, got {tuple(a.shape)}, {tuple(b.shape)}")


def _areas(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the (P,) areas of intersection, union and smallest enclosing box of each pair."""
    _check_pairs(a, b)
    # With the first corner negated sides are sums, intersections minima, enclosing boxes maxima:
    # all areas take the same few operations.
    outward = constant((-1.0, -1.0, 1.0, 1.0), a)
    a, b = a * outward, b * outward
    boxes = torch.stack([torch.minimum(a, b), torch.maximum(a, b), a, b])
    sides = boxes.unflatten(-1, (2, 2)).sum(-2).clamp(min=0)
    if sides.device.type == "cpu":  # where trainings keep the last bits that they always had
        areas = [x.prod(1) for x in sides]
    else:  # the gradient of `prod` waits for the device
        width, height = sides.unbind(-1)
        areas = list(width * height)
    intersection, enclosing, area_a, area_b = areas
    return intersection, area_a + area_b - intersection, enclosing


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
