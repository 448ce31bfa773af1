"""Losses of instance masks: one value per mask, no reduction over masks."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.losses.base import ConfiguredModule, check_numbers, check_tensors, check_values


def dice_loss(logits: Tensor, targets: Tensor, *, eps: float = 1e-5) -> Tensor:
    """`1 - 2 sum(p g) / (sum p^2 + sum g^2 + eps)` with `p` the sigmoid (Milletari et al., 2016).

    Args:
        logits: (P, S, S) mask logits.
        targets: (P, S, S) masks in [0, 1].
        eps: number added to the denominator only, > 0, as published: the loss of an empty target
            tends to 1 and never to 0.

    Returns:
        (P,) losses in [0, 1].

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> targets = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
        >>> round(dice_loss(20 * targets - 10, targets).item(), 3)
        0.0
    """
    check_numbers("> 0", eps=eps)
    logits, targets = _checked(logits, targets)
    masks, targets = logits.sigmoid().flatten(1), targets.flatten(1)
    overlap = (masks * targets).sum(1)
    return 1 - 2 * overlap / (masks.square().sum(1) + targets.square().sum(1) + eps)


class MaskLoss(ConfiguredModule, ABC):
    """Base class of the losses per mask.

    Example:
        >>> class SquaredError(MaskLoss):
        ...     def forward(self, logits, targets):
        ...         return (logits.sigmoid() - targets).square().mean((1, 2))
        >>> SquaredError()(torch.zeros(1, 28, 28), torch.ones(1, 28, 28))
        tensor([0.2500])
    """

    @abstractmethod
    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compare (P, S, S) mask logits with (P, S, S) targets in [0, 1]: (P,) losses."""


class DiceLoss(MaskLoss):
    """Module form of `dice_loss`.

    Args:
        eps: number added to the denominator, > 0.

    Raises:
        ValueError: If `eps` is no finite number > 0.

    Example:
        >>> DiceLoss()
        DiceLoss(eps=1e-05)
    """

    def __init__(self, *, eps: float = 1e-5):
        super().__init__()
        check_numbers("> 0", eps=eps)
        self.eps = eps

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compare (P, S, S) mask logits with (P, S, S) targets in [0, 1]: (P,) losses."""
        return dice_loss(logits, targets, eps=self.eps)


class MaskCrossEntropyLoss(MaskLoss):
    """Binary cross-entropy, averaged over the pixels of a mask: the Mask R-CNN baseline.

    Example:
        >>> MaskCrossEntropyLoss()(torch.zeros(1, 2, 2), torch.ones(1, 2, 2))
        tensor([0.6931])
    """

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compare (P, S, S) mask logits with (P, S, S) targets in [0, 1]: (P,) losses."""
        logits, targets = _checked(logits, targets)
        pixels = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return pixels.flatten(1).mean(1)


def _checked(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in at least float32."""
    check_tensors(logits=logits, targets=targets)
    if logits.shape != targets.shape or logits.ndim != 3:
        raise ValueError(
            "expected (P, S, S) logits of the masks' own classes and targets of that shape, got "
            f"{tuple(logits.shape)} and {tuple(targets.shape)}"
        )
    check_values("targets", targets, 0.0, 1.0, "in [0, 1]", nan=True)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype), targets.to(dtype)
