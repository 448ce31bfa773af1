"""Criterion of the ranking losses without coupling: AP, BAP, RS, BRS."""

from typing import Any

import torch
from torch import Tensor

from brloss_d2.criteria.base import CriterionOutput, MatchedPredictions
from brloss_d2.criteria.pools import PooledCriterion
from brloss_d2.losses import Balancer, BoxLoss, RankingLoss, paired_box_iou
from brloss_d2.ops import Processes, with_value


class RankingCriterion(PooledCriterion):
    """Ranks all rows and classes of a pool together; box losses are weighted by score.

    Oksuz et al., ICCV 2021 (RS) and Yavuz et al., ECCV 2024 (BRS). Every row and class is one
    decision of the pool; the quality of a positive is the IoU of its predicted box with its ground
    truth. No row is sampled away.

    Args:
        cls_loss: the ranking loss.
        box_loss: per positive.
        balancer: weighs the box loss against the ranking terms.
        score_weighted: average the box losses with the highest class score of their row as weight,
            else with equal weights.
        pools: see `PooledCriterion`.
    """

    def __init__(
        self,
        cls_loss: RankingLoss,
        box_loss: BoxLoss,
        balancer: Balancer,
        *,
        score_weighted: bool = True,
        **pools: Any,
    ):
        super().__init__(**pools)
        self.cls_loss, self.box_loss, self.balancer = cls_loss, box_loss, balancer
        self.score_weighted = score_weighted

    def rank(self, matched: MatchedPredictions, processes: Processes) -> CriterionOutput:
        logits, labels = matched.logits.flatten(), matched.binary_labels().flatten()
        quality = paired_box_iou(matched.pred_boxes.detach(), matched.gt_boxes)
        losses = self.cls_loss(logits, labels, quality, processes=processes)
        cls_total = torch.stack(list(losses.values())).sum().detach()
        weights = self._box_weights(matched)
        box_loss = weighted_mean(matched.box_losses(self.box_loss), weights, processes)
        positives = processes.total(len(weights), weights.device)
        balanced = self.balancer(cls_total, box_loss, positives)
        metrics: dict[str, Tensor | float] = {
            "box_reg_unbalanced": box_loss.detach(),
            "num_positives": len(weights),
            "pool_size": matched.num_decisions,
        }
        return CriterionOutput({**losses, "loss_box_reg": balanced}, weights, cls_total, metrics)

    def _box_weights(self, matched: MatchedPredictions) -> Tensor:
        if not self.score_weighted:
            return matched.pred_boxes.new_ones(len(matched.pred_boxes))
        scores = matched.logits.detach()[matched.foreground()].float().sigmoid()
        return scores.amax(1)


def weighted_mean(values: Tensor, weights: Tensor, processes: Processes) -> Tensor:
    """`sum(w v) / sum(w)`, (), over all processes; 0 where the weights vanish.

    The value is that of the whole pool; the gradient that of the local part, times the number of
    processes, over which data-parallel training averages.
    """
    total = (values * weights).sum()
    sums = processes.sum(torch.stack([total.detach(), weights.sum()]))
    divisor = torch.where(sums[1] < 1e-10, 1.0, sums[1])
    return with_value(total * processes.size / divisor, sums[0] / divisor)
