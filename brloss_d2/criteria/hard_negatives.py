"""Softmax cross-entropy of the positives and the hardest negatives: the YOLACT baseline."""

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.criteria.matched import CriterionOutput, MatchedPredictions
from brloss_d2.criteria.score import SoftmaxCriterion
from brloss_d2.losses import BoxLoss
from brloss_d2.losses.base import check_numbers


class HardNegativeCriterion(SoftmaxCriterion):
    """Softmax cross-entropy with hard negative mining per image, and a box loss.

    Liu et al., ECCV 2016 (SSD), section 2.2; the baseline of YOLACT (Bolya et al., ICCV 2019). All
    sums are divided by the number of positives of the batch, where each image counts for at least
    one, as published.

    Args:
        box_loss: loss per positive.
        box_weight: factor of the box loss.
        negative_ratio: number of negatives of an image, those of the largest loss, for each of its
            positives; of an image without positives all are taken.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> from brloss_d2.losses import SmoothL1Loss
        >>> HardNegativeCriterion(SmoothL1Loss(beta=1.0), box_weight=1.5).num_logits(80)
        81
    """

    def __init__(self, box_loss: BoxLoss, *, box_weight: float = 1.0, negative_ratio: float = 3.0):
        super().__init__(box_loss, box_weight=box_weight)
        check_numbers(">= 0", negative_ratio=negative_ratio)
        self.negative_ratio = negative_ratio

    def forward(self, matched: MatchedPredictions) -> CriterionOutput:
        """Compute `loss_cls` and `loss_box_reg`."""
        values = F.cross_entropy(
            matched.logits.float(), matched.labels, ignore_index=-1, reduction="none"
        )
        counted = self.hard_negatives(values.detach(), matched)
        counted[matched.foreground] = True
        count = matched.positives_per_image.clamp(min=1).sum()
        box_sum = matched.box_losses(self.box_loss).sum()
        losses = {
            "loss_cls": (values * counted).sum() / count,
            "loss_box_reg": self.box_weight * box_sum / count,
        }
        return CriterionOutput(
            losses,
            box_weights=torch.ones_like(matched.gt_boxes[:, 0]),
            cls_total=losses["loss_cls"].detach(),
            metrics=lambda: {"num_positives": len(matched.foreground)},
        )

    def hard_negatives(self, values: Tensor, matched: MatchedPredictions) -> Tensor:
        """Choose the negatives to train on.

        Args:
            values: (R,) cross-entropy of each row.
            matched: predictions with their ground truth.

        Returns:
            (R,) bool.
        """
        negative = matched.labels == matched.num_classes
        rows_per_image = list(matched.rows_per_image or [len(values)])
        parts = zip(
            values.masked_fill(~negative, -1.0).split(rows_per_image),
            negative.split(rows_per_image),
            matched.positives_per_image,
            strict=True,
        )
        chosen = []
        for own_values, candidates, positives in parts:
            order = own_values.argsort(descending=True, stable=True)
            rank = torch.empty_like(order)
            rank[order] = torch.arange(len(order), device=order.device)
            hard = (rank < self.negative_ratio * positives) | (positives == 0)
            chosen.append(candidates & hard)
        return torch.cat(chosen)
