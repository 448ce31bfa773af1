"""Class weights for score-based losses: the usual remedy for rare classes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from brloss_d2.losses.base import check_numbers, check_types
from brloss_d2.losses.score import ScoreLoss


class ClassWeightedLoss(ScoreLoss):
    """Score-based loss whose positive rows weigh more, the rarer their class.

    Class-balanced loss (Cui et al., CVPR 2019): all entries of a positive row are multiplied by
    `(1 - beta) / (1 - beta^n)` for the n objects of its class, scaled so that the weights of the
    classes that occur average to 1. Rows of the background weigh 1.

    Args:
        cls_loss: loss per row and class.
        counts: number of objects of each class in the dataset; None counts the positives of each
            batch instead.
        beta: how much numbers count, in [0, 1): 0 not at all, near 1 in inverse proportion.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> from brloss_d2.losses import BinaryCrossEntropyLoss
        >>> loss = ClassWeightedLoss(BinaryCrossEntropyLoss(), counts=[3, 1])
        >>> loss(torch.zeros(2, 2), torch.eye(2))
        tensor([[0.3468, 0.3468],
                [1.0395, 1.0395]])
    """

    def __init__(
        self, cls_loss: ScoreLoss, *, counts: Sequence[int] | None = None, beta: float = 0.999
    ):
        super().__init__()
        check_types(cls_loss=(cls_loss, ScoreLoss))
        check_numbers("in [0, 1]", beta=beta)
        if beta == 1:
            raise ValueError("beta must be below 1, got 1")
        for count in counts or []:
            check_numbers(">= 0", counts=count)
        self.cls_loss, self.beta = cls_loss, beta
        self.counts = None if counts is None else list(counts)

    @property
    def soft_targets(self) -> bool:  # type: ignore[override]
        """Whether the target of a positive is the IoU of its box, as in the weighted loss."""
        return self.cls_loss.soft_targets

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compare (R, K) logits with (R, K) targets in [0, 1]: (R, K) losses."""
        losses, positive = self.cls_loss(logits, targets), (targets > 0).to(targets.dtype)
        counts = positive.sum(0)
        if self.counts is not None:
            if len(self.counts) != len(counts):
                raise ValueError(
                    f"counts must have a number for each of {len(counts)} classes, got "
                    f"{self.counts}"
                )
            counts = counts.new_tensor(self.counts)
        occurs = counts > 0
        # Not with `expm1`, whose logarithm has no value for beta = 0.
        weights = (1 - self.beta) / (1 - self.beta ** counts.double().clamp(min=1))
        mean = (weights * occurs).sum() / occurs.sum().clamp(min=1)
        # 1 for classes that do not occur, and for the background.
        weights = torch.where(occurs, weights / mean, 1.0).to(counts.dtype)
        return losses * (positive @ weights + (1 - positive.amax(1)))[:, None]
