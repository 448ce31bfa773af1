"""Losses of instance masks: one number per mask, no reduction over masks.

Masks are (P, S, S), logits against targets in [0, 1].
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def dice_loss(logits: Tensor, targets: Tensor, *, eps: float = 1e-5) -> Tensor:
    """`1 - 2 sum(p g) / (sum p^2 + sum g^2 + eps)` with `p` the sigmoid (Milletari et al., 2016).

    Args:
        logits: (P, S, S) unbounded.
        targets: (P, S, S) in [0, 1].
        eps: added to the denominator alone, as the published detectors do: the loss of an empty
            target tends to 1 and never to 0.

    Returns:
        (P,) in [0, 1].

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(logits, targets)
    logits = _at_least_float32(logits)
    masks, targets = logits.sigmoid().flatten(1), targets.to(logits.dtype).flatten(1)
    overlap = (masks * targets).sum(1)
    return 1 - 2 * overlap / (masks.square().sum(1) + targets.square().sum(1) + eps)


class MaskLoss(nn.Module, ABC):
    """A loss per mask, `forward(logits (P, S, S), targets (P, S, S)) -> (P,)`."""

    @abstractmethod
    def forward(self, logits: Tensor, targets: Tensor) -> Tensor: ...


class DiceLoss(MaskLoss):
    """Dice loss with squared denominator, see `dice_loss`.

    Args:
        eps: added to the denominator, > 0.
    """

    def __init__(self, *, eps: float = 1e-5):
        super().__init__()
        if not eps > 0:
            raise ValueError(f"eps must be > 0, got {eps}")
        self.eps = eps

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return dice_loss(logits, targets, eps=self.eps)

    def extra_repr(self) -> str:
        return f"eps={self.eps}"


class MaskCrossEntropyLoss(MaskLoss):
    """Binary cross-entropy of the pixels of a mask, averaged: the Mask R-CNN baseline."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        _check_shapes(logits, targets)
        logits = _at_least_float32(logits)
        pixels = F.binary_cross_entropy_with_logits(
            logits, targets.to(logits.dtype), reduction="none"
        )
        return pixels.flatten(1).mean(1)


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _check_shapes(logits: Tensor, targets: Tensor) -> None:
    if logits.shape != targets.shape or logits.ndim != 3:
        raise ValueError(
            "expected (P, S, S) logits of the masks' own classes and targets of that shape, got "
            f"{tuple(logits.shape)} and {tuple(targets.shape)}"
        )
