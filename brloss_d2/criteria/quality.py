"""Quality of a foreground row: weight of its box loss, and target of a branch that predicts it.

Parts of the score-based one-stage detectors. Ranking losses need none of them.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.criteria.matched import MatchedPredictions
from brloss_d2.losses import CorrelationLoss
from brloss_d2.losses.base import ConfiguredModule, check_numbers, check_types


class PositiveQuality(ConfiguredModule, ABC):
    """Base class of the qualities of the foreground rows.

    Example:
        >>> class Constant(PositiveQuality):
        ...     def forward(self, matched):
        ...         return torch.ones(len(matched.foreground))
        >>> Constant()
        Constant()
    """

    @abstractmethod
    def forward(self, matched: MatchedPredictions) -> Tensor:
        """Return (P,) qualities in [0, 1], without gradient."""


class Centerness(PositiveQuality):
    """Centrality of the anchor in its object (Tian et al., ICCV 2019, eq. 3).

    Example:
        >>> Centerness()
        Centerness()
    """

    @torch.no_grad()
    def forward(self, matched: MatchedPredictions) -> Tensor:
        """Return (P,) centerness in [0, 1] of the anchors, `matched.references`.

        Raises:
            ValueError: If there are no `references`.
        """
        if matched.references is None:
            raise ValueError("Centerness needs `references`, the anchors of the foreground rows")
        centers = (matched.references[:, :2] + matched.references[:, 2:]) / 2
        to_start, to_end = centers - matched.gt_boxes[:, :2], matched.gt_boxes[:, 2:] - centers
        near, far = torch.minimum(to_start, to_end), torch.maximum(to_start, to_end)
        return (near.clamp(min=0) / far.clamp(min=1e-6)).prod(1).sqrt()


class PredictedIoU(PositiveQuality):
    """IoU of the predicted box with its ground truth (Kim & Lee, ECCV 2020).

    Of a head that hands in another quality, such as that of masks, it is that quality.

    Example:
        >>> PredictedIoU()
        PredictedIoU()
    """

    def forward(self, matched: MatchedPredictions) -> Tensor:
        """Return (P,) IoU in [0, 1]."""
        return matched.localization_quality()


def correlation_loss(loss: CorrelationLoss, matched: MatchedPredictions) -> Tensor:
    """Return the () loss of scores and predicted IoU of the foreground rows, by image or level.

    Makes the host wait for a GPU unless all rows are one group.

    Raises:
        ValueError: If levels are asked for, but not known.
    """
    groups = None
    if loss.per == "image":
        groups = matched.images
    elif loss.per == "level":
        if matched.levels is None:
            raise ValueError("a correlation per level needs `levels`, which only dense heads have")
        groups = matched.levels
    if groups is not None:
        groups = groups.unique(return_inverse=True)[1]
    return loss(matched.positive_scores, PredictedIoU()(matched), groups)


class TopScore(PositiveQuality):
    """Highest class score of the row (Li et al., NeurIPS 2020).

    Example:
        >>> TopScore()
        TopScore()
    """

    @torch.no_grad()
    def forward(self, matched: MatchedPredictions) -> Tensor:
        """Return (P,) scores in [0, 1]."""
        logits = matched.logits[matched.foreground, : matched.num_classes]
        return logits.float().sigmoid().amax(1)


class QualityBranch(ConfiguredModule):
    """Binary cross-entropy of a head's branch that predicts quality.

    Args:
        target: quality to predict.
        loss_weight: factor of the loss.

    Example:
        >>> QualityBranch(Centerness(), loss_weight=0.5).loss_weight
        0.5
    """

    def __init__(self, target: PositiveQuality, *, loss_weight: float = 1.0):
        super().__init__()
        check_types(target=(target, PositiveQuality))
        check_numbers(">= 0", loss_weight=loss_weight)
        self.target, self.loss_weight = target, loss_weight

    def forward(self, matched: MatchedPredictions) -> Tensor:
        """Return the () weighted sum over the foreground rows.

        Raises:
            ValueError: If the head has no such branch.
        """
        if matched.quality_logits is None:
            raise ValueError("a quality branch is trained, but the head has none")
        logits, targets = matched.quality_logits.float(), self.target(matched)
        return self.loss_weight * F.binary_cross_entropy_with_logits(
            logits, targets, reduction="sum"
        )
