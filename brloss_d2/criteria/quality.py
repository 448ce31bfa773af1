"""How good a foreground row is: weights of its box loss, and targets of a branch that predicts it.

Parts of the score-based one-stage detectors. Ranking losses need none of them.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brloss_d2.criteria.matched import MatchedPredictions
from brloss_d2.losses import paired_box_iou


class PositiveQuality(nn.Module, ABC):
    """`forward(matched) -> (P,)` in [0, 1], without gradient."""

    @abstractmethod
    def forward(self, matched: MatchedPredictions) -> Tensor: ...


class Centerness(PositiveQuality):
    """How central the anchor is in its object (Tian et al., ICCV 2019, Eq. 3)."""

    @torch.no_grad()
    def forward(self, matched: MatchedPredictions) -> Tensor:
        if matched.references is None:
            raise ValueError("Centerness needs `references`, the anchors of the foreground rows")
        centers = (matched.references[:, :2] + matched.references[:, 2:]) / 2
        to_start, to_end = centers - matched.gt_boxes[:, :2], matched.gt_boxes[:, 2:] - centers
        near, far = torch.minimum(to_start, to_end), torch.maximum(to_start, to_end)
        return (near.clamp(min=0) / far.clamp(min=1e-6)).prod(1).sqrt()


class PredictedIoU(PositiveQuality):
    """IoU of the predicted box with its ground truth (Kim & Lee, ECCV 2020)."""

    @torch.no_grad()
    def forward(self, matched: MatchedPredictions) -> Tensor:
        return paired_box_iou(matched.pred_boxes, matched.gt_boxes)


class TopScore(PositiveQuality):
    """The highest class score of the row (Li et al., NeurIPS 2020)."""

    @torch.no_grad()
    def forward(self, matched: MatchedPredictions) -> Tensor:
        rows = matched.foreground()
        return matched.logits[rows, : matched.num_classes].float().sigmoid().amax(1)


class QualityBranch(nn.Module):
    """Binary cross-entropy of a branch of the head that predicts quality.

    Args:
        target: what it predicts.
        loss_weight: of this term.
    """

    def __init__(self, target: PositiveQuality, *, loss_weight: float = 1.0):
        super().__init__()
        self.target, self.loss_weight = target, loss_weight

    def forward(self, matched: MatchedPredictions) -> Tensor:
        """Return () the weighted sum over the foreground rows.

        Raises:
            ValueError: the head has no such branch.
        """
        logits = matched.quality_logits
        if logits is None:
            raise ValueError("a quality branch is trained, but the head has none")
        targets = self.target(matched)
        return self.loss_weight * F.binary_cross_entropy_with_logits(
            logits.float(), targets, reduction="sum"
        )

    def extra_repr(self) -> str:
        return f"loss_weight={self.loss_weight}"
