"""Score-based classification losses, elementwise: the baselines of the ranking losses."""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn


class ScoreLoss(nn.Module, ABC):
    """`forward(logits (R, K), targets (R, K) in {0, 1}) -> (R, K)`."""

    @abstractmethod
    def forward(self, logits: Tensor, targets: Tensor) -> Tensor: ...


class BinaryCrossEntropyLoss(ScoreLoss):
    """Binary cross-entropy with logits."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


class SigmoidFocalLoss(ScoreLoss):
    """Focal Loss (Lin et al., ICCV 2017).

    Args:
        alpha: weight of the positives in [0, 1]; negatives weigh `1 - alpha`.
        gamma: exponent that lowers the weight of decisions already made well, >= 0.
    """

    def __init__(self, *, alpha: float = 0.25, gamma: float = 2.0):
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        wrong = logits.sigmoid().sub(targets).abs()
        weight = self.alpha * targets + (1 - self.alpha) * (1 - targets)
        return weight * wrong**self.gamma * cross_entropy

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gamma={self.gamma}"
