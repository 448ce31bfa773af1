"""Score-based classification losses, elementwise: the baselines of the ranking losses."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.losses.base import ConfiguredModule, check_numbers, check_tensors, check_values


class ScoreLoss(ConfiguredModule, ABC):
    """Base class of the losses per row and class.

    Attributes:
        soft_targets: whether the target of a positive is the IoU of its box instead of 1.

    Example:
        >>> class SquaredError(ScoreLoss):
        ...     def forward(self, logits, targets):
        ...         return (logits.sigmoid() - targets).square()
        >>> SquaredError()(torch.zeros(1, 1), torch.ones(1, 1))
        tensor([[0.2500]])
    """

    soft_targets: ClassVar[bool] = False

    @abstractmethod
    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compare (R, K) logits with (R, K) targets in [0, 1]: (R, K) losses."""


def _cross_entropy(logits: Tensor, targets: Tensor, *, power: float = 1.0) -> Tensor:
    """Compute the cross-entropy of the sigmoid with `targets ** power`, elementwise."""
    check_tensors(logits=logits, targets=targets)
    if not (logits.is_floating_point() and targets.is_floating_point()):
        raise ValueError(
            f"logits and targets must be floating point, got {logits.dtype} and {targets.dtype}"
        )
    if logits.shape != targets.shape:
        raise ValueError(
            f"targets must have the shape of logits {tuple(logits.shape)}, got "
            f"{tuple(targets.shape)}"
        )
    check_values("targets", targets, 0.0, 1.01, "in [0, 1]", nan=True)
    targets = targets if power == 1 else targets**power
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def _focal_on_negatives(
    logits: Tensor, targets: Tensor, gamma: float, *, power: float = 1.0
) -> Tensor:
    """Compute the cross-entropy with `targets ** power`, times `score ** gamma` if they are 0."""
    cross_entropy = _cross_entropy(logits, targets, power=power)
    return torch.where(targets > 0, 1.0, logits.sigmoid() ** gamma) * cross_entropy


class BinaryCrossEntropyLoss(ScoreLoss):
    """Binary cross-entropy of the sigmoid.

    Example:
        >>> BinaryCrossEntropyLoss()(torch.zeros(1, 1), torch.ones(1, 1))
        tensor([[0.6931]])
    """

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compare (R, K) logits with (R, K) targets in [0, 1]: (R, K) losses."""
        return _cross_entropy(logits, targets)


class SigmoidFocalLoss(ScoreLoss):
    """Focal Loss (Lin et al., ICCV 2017).

    Args:
        alpha: weight of the positives in [0, 1]; negatives weigh `1 - alpha`.
        gamma: exponent that lowers the weight of decisions that are right already, >= 0.

    Example:
        >>> SigmoidFocalLoss(alpha=0.5, gamma=0.0)(torch.zeros(1, 1), torch.ones(1, 1))
        tensor([[0.3466]])
    """

    def __init__(self, *, alpha: float = 0.25, gamma: float = 2.0):
        super().__init__()
        check_numbers("in [0, 1]", alpha=alpha)
        check_numbers(">= 0", gamma=gamma)
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compare (R, K) logits with (R, K) targets in [0, 1]: (R, K) losses."""
        cross_entropy = _cross_entropy(logits, targets)
        wrong = logits.sigmoid().sub(targets).abs()
        weight = self.alpha * targets + (1 - self.alpha) * (1 - targets)
        return weight * wrong**self.gamma * cross_entropy


class QualityFocalLoss(ScoreLoss):
    """Quality Focal Loss (Li et al., NeurIPS 2020, eq. 5): scores learn to be the IoU.

    Cross-entropy with a soft target, times the distance from it to the power of `beta`. With a
    target of 0 or 1 it is focal loss without `alpha`.

    Args:
        beta: exponent that lowers the weight of scores near their target, >= 0.

    Example:
        >>> QualityFocalLoss()(torch.zeros(1, 1), torch.full((1, 1), 0.5))
        tensor([[0.]])
    """

    soft_targets = True

    def __init__(self, *, beta: float = 2.0):
        super().__init__()
        check_numbers(">= 0", beta=beta)
        self.beta = beta

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compare (R, K) logits with (R, K) targets in [0, 1]: (R, K) losses."""
        cross_entropy = _cross_entropy(logits, targets)
        return (targets - logits.sigmoid()).abs() ** self.beta * cross_entropy


class VarifocalLoss(ScoreLoss):
    """Varifocal Loss (Zhang et al., CVPR 2021, eq. 2): focal on negatives, by quality on positives.

    Cross-entropy with a soft target q, weighted by q itself if q > 0 and by
    `alpha * score ** gamma` if q = 0.

    Args:
        alpha: weight of the negatives, >= 0.
        gamma: exponent that lowers the weight of negatives with a low score, >= 0.

    Example:
        >>> VarifocalLoss()(torch.zeros(1, 2), torch.tensor([[0.5, 0.0]]))
        tensor([[0.3466, 0.1300]])
    """

    soft_targets = True

    def __init__(self, *, alpha: float = 0.75, gamma: float = 2.0):
        super().__init__()
        check_numbers(">= 0", alpha=alpha, gamma=gamma)
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compare (R, K) logits with (R, K) targets in [0, 1]: (R, K) losses."""
        cross_entropy = _cross_entropy(logits, targets)
        negative = self.alpha * logits.sigmoid() ** self.gamma
        return torch.where(targets > 0, targets, negative) * cross_entropy


class MatchabilityAwareLoss(ScoreLoss):
    """Matchability-Aware Loss (Huang et al., CVPR 2025, DEIM): low quality is a low target.

    Cross-entropy with the soft target q^gamma if q > 0, unweighted, so that a positive of low
    quality counts as much as one of high quality; times `score ** gamma` if q = 0. Both factors
    have a gradient.

    Args:
        gamma: exponent of the quality, and of the scores of negatives, >= 0.

    Example:
        >>> MatchabilityAwareLoss(gamma=1.0)(torch.zeros(1, 2), torch.tensor([[0.5, 0.0]]))
        tensor([[0.6931, 0.3466]])
    """

    soft_targets = True

    def __init__(self, *, gamma: float = 1.5):
        super().__init__()
        check_numbers(">= 0", gamma=gamma)
        self.gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compare (R, K) logits with (R, K) targets in [0, 1]: (R, K) losses."""
        return _focal_on_negatives(logits, targets, self.gamma, power=self.gamma)


class IABCELoss(ScoreLoss):
    """IoU-aware binary cross-entropy, IA-BCE (Cai et al., BMVC 2024, Align-DETR).

    Cross-entropy with a soft target if that is above 0, unweighted; times `score ** gamma` if it is
    0. The target is that of `criteria.ScoreAndIoU`, a mean of score and IoU. The same as
    `MatchabilityAwareLoss`, but for the power of the target.

    Args:
        gamma: exponent of the scores of negatives, >= 0.

    Example:
        >>> IABCELoss()(torch.zeros(1, 2), torch.tensor([[0.5, 0.0]]))
        tensor([[0.6931, 0.1733]])
    """

    soft_targets = True

    def __init__(self, *, gamma: float = 2.0):
        super().__init__()
        check_numbers(">= 0", gamma=gamma)
        self.gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compare (R, K) logits with (R, K) targets in [0, 1]: (R, K) losses."""
        return _focal_on_negatives(logits, targets, self.gamma)


class PositionSupervisedLoss(ScoreLoss):
    """Position-supervised loss (Liu et al., ICCV 2023, Stable-DINO): focal loss with soft targets.

    Cross-entropy times the distance from the target to the power of `gamma`, and `alpha` if the
    target is above 0, `1 - alpha` if it is 0. The target is that of `criteria.RelativeIoU`.

    Args:
        alpha: weight of the positives in [0, 1].
        gamma: exponent that lowers the weight of scores near their target, >= 0.

    Example:
        >>> PositionSupervisedLoss()(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        tensor([[0.0433, 0.1300]])
    """

    soft_targets = True

    def __init__(self, *, alpha: float = 0.25, gamma: float = 2.0):
        super().__init__()
        check_numbers("in [0, 1]", alpha=alpha)
        check_numbers(">= 0", gamma=gamma)
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compare (R, K) logits with (R, K) targets in [0, 1]: (R, K) losses."""
        cross_entropy = _cross_entropy(logits, targets)
        weight = torch.where(targets > 0, self.alpha, 1 - self.alpha)
        return weight * (targets - logits.sigmoid()).abs() ** self.gamma * cross_entropy
