"""Elementwise box losses: one value per pair of boxes, no reduction.

Boxes are (P, 4) XYXY in absolute pixels. Decoded boxes carry gradients to the deltas.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.losses.base import ConfiguredModule, check_numbers, check_tensors
from brloss_d2.ops import Term, attach
from brloss_d2.utils.devices import constant

# The published GIoU bounds union and enclosing area from below by this many square pixels.
_MIN_AREA = 1e-6
_OUTWARD = (-1.0, -1.0, 1.0, 1.0)


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
    return BoxPairs(a, b).iou()


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
    return 1 - BoxPairs(a, b).giou_loss()


def _check_pairs(a: Tensor, b: Tensor) -> None:
    check_tensors(a=a, b=b)
    if a.shape != b.shape or a.shape[-1:] != (4,):
        raise ValueError(f"expected two (P, 4) box tensors, got {tuple(a.shape)}, {tuple(b.shape)}")


class _Extents(NamedTuple):
    """What the areas of P pairs of boxes are made of.

    The first corner of a box is negated, so that its sides are sums, an intersection is a minimum
    and an enclosing box a maximum: all areas take the same few operations.

    Attributes:
        pairs: (2, P, 4) coordinates of both boxes, pointing outward.
        sides: (4, P, 2) widths and heights of intersection, first box, enclosing box, second box;
            below 0 if there is none.
        lengths: (4, P, 2) the same, bounded by 0 from below.
        areas: (3, P) areas of intersection, union and enclosing box.
    """

    pairs: Tensor
    sides: Tensor
    lengths: Tensor
    areas: Tensor


class BoxPairs:
    """Pairs of boxes: their areas are computed once for all measures of how they overlap.

    Gradients are made by hand, with the values: autograd would take twice as many operators.

    Args:
        a: (P, 4) boxes, XYXY.
        b: (P, 4) boxes, XYXY in the same unit.

    Raises:
        ValueError: If the shapes differ or are not (P, 4).
    """

    def __init__(self, a: Tensor, b: Tensor):
        _check_pairs(a, b)
        self.a, self.b = a, b

    @cached_property
    @torch.no_grad()
    def _extents(self) -> _Extents:
        pairs = torch.stack([self.a, self.b]) * constant(_OUTWARD, self.a)
        inner, outer = pairs.aminmax(dim=0)
        boxes = torch.stack([inner, pairs[0], outer, pairs[1]])
        sides = boxes.unflatten(-1, (2, 2)).sum(-2)
        lengths = sides.clamp(min=0)
        areas = lengths[..., 0] * lengths[..., 1]
        areas[1].add_(areas[3]).sub_(areas[0])  # the union in the place of the first box
        return _Extents(pairs, sides, lengths, areas[:3])

    def iou(self) -> Tensor:
        """(P,) IoU in [0, 1], 0 for two boxes without area."""
        with torch.no_grad():
            intersection, union, _ = self._extents.areas
            union = union.masked_fill(union <= 0, 1)
            iou = intersection / union
        return self._attached(iou, lambda: torch.stack([1 / union, -iou / union, 0 * iou]))

    def giou_loss(self) -> Tensor:
        """(P,) `1 - GIoU` in [0, 2] (Rezatofighi et al., CVPR 2019), of boxes in pixels."""
        with torch.no_grad():
            areas = self._extents.areas
            lowest = constant((0.0, _MIN_AREA, _MIN_AREA), areas)[:, None]
            bounded = areas.clamp(min=lowest)
            # GIoU = I / U - (C - U) / C
            ratios = bounded[:2] / bounded[1:]

        def slopes() -> Tensor:
            inverse = 1 / bounded[1:]
            of_union, of_enclosing = ratios * inverse
            slopes = torch.stack([-inverse[0], of_union - inverse[1], of_enclosing])
            return slopes * (areas >= lowest)

        return self._attached(2 - ratios.sum(0), slopes)

    def _attached(self, values: Tensor, slopes: Callable[[], Tensor]) -> Tensor:
        """Attach values of the pairs to the graph of their boxes.

        Args:
            values: (P,) functions of the areas.
            slopes: function that returns their derivatives by intersection, union and enclosing
                box, (3, P).
        """
        if not (torch.is_grad_enabled() and (self.a.requires_grad or self.b.requires_grad)):
            return values
        pairs, sides, lengths, _ = self._extents
        with torch.no_grad():
            # Of the sides of intersection, first box, enclosing box, second box. An area grows with
            # a side by the length of the other one.
            of_inner, of_union, of_outer = slopes()
            of_areas = torch.stack([of_inner - of_union, of_union, of_outer, of_union])
            of_sides = (of_areas[..., None] * lengths.flip(-1) * (sides >= 0))[:, :, None]
        attached = []
        for i, box in enumerate((self.a, self.b)):
            if not box.requires_grad:
                continue
            with torch.no_grad():
                # 1 where a side is that of the enclosing box, 0 where it bounds the intersection.
                outside = torch.heaviside(pairs[i] - pairs[1 - i], constant((0.5,), pairs))
                gradient = of_sides[0].lerp(of_sides[2], outside.unflatten(-1, (2, 2)))
                gradient = (gradient + of_sides[2 * i + 1]).flatten(1) * constant(_OUTWARD, pairs)
            attached.append(attach(box, Term(values, gradient))[0])
        return attached[0] if len(attached) == 1 else attached[0] + attached[1] - values


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
        return BoxPairs(pred, target).giou_loss()


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
