"""Criterion of the ranking losses without coupling: AP, BAP, RS, BRS."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from brloss_d2.criteria.matched import (
    BoxLosses,
    CriterionOutput,
    MatchedPredictions,
    named_box_losses,
)
from brloss_d2.criteria.pooling import PooledCriterion
from brloss_d2.losses import Balancer, RankingLoss, paired_box_iou
from brloss_d2.ops import PoolGroup, with_value


class RankingCriterion(PooledCriterion):
    """Ranks all rows and classes of a pool together; box losses are weighted by score.

    Oksuz et al., ICCV 2021 (RS) and Yavuz et al., ECCV 2024 (BRS). Every row and class is one
    decision of the pool; the quality of a positive is the IoU of its predicted box with its ground
    truth. No row is sampled away.

    Args:
        cls_loss: the ranking loss.
        box_loss: per positive; or several by name, such as `{"loss_l1": ..., "loss_giou": ...}`.
        balancer: weighs each box loss against the ranking terms.
        score_weighted: average the box losses with the highest class score of their row as weight,
            else with equal weights.
        disjoint_is_negative: rank a foreground row whose box does not touch its object (IoU 0)
            among the negatives, as published; else it stays a positive of the lowest quality.
        cls_weights: of the terms of `cls_loss` by name; those not named weigh 1.
        pools: see `PooledCriterion`.

    Raises:
        ValueError: several box losses share a balancer that keeps a state.
    """

    def __init__(
        self,
        cls_loss: RankingLoss,
        box_loss: BoxLosses,
        balancer: Balancer,
        *,
        score_weighted: bool = True,
        disjoint_is_negative: bool = False,
        cls_weights: Mapping[str, float] | None = None,
        **pools: Any,
    ):
        super().__init__(**pools)
        self.cls_loss, self.balancer = cls_loss, balancer
        self.box_losses = named_box_losses(box_loss)
        if len(self.box_losses) > 1 and len(list(balancer.buffers())) > 0:
            raise ValueError(f"{type(balancer).__name__} keeps a state: it balances one box loss")
        self.score_weighted, self.disjoint_is_negative = score_weighted, disjoint_is_negative
        self.cls_weights = dict(cls_weights or {})

    def rank(self, matched: MatchedPredictions, processes: PoolGroup) -> CriterionOutput:
        labels = matched.binary_labels()
        quality = paired_box_iou(matched.pred_boxes.detach(), matched.gt_boxes)
        if self.disjoint_is_negative:
            rows, meets = matched.foreground(), quality > 0
            labels[rows, matched.labels[rows]] = meets.to(labels.dtype)
            quality = quality[meets]
        logits = matched.logits.flatten()
        terms = self.cls_loss(logits, labels.flatten(), quality, processes=processes)
        losses = {name: self.cls_weights.get(name, 1.0) * x for name, x in terms.items()}
        cls_total = torch.stack(list(losses.values())).sum().detach()
        weights = self._box_weights(matched)
        positives = processes.total(len(weights), weights.device)
        metrics: dict[str, Tensor | float] = {
            "num_positives": len(weights),
            "pool_size": matched.num_decisions,
        }
        for name, box_loss in self.box_losses.items():
            value = weighted_mean(matched.box_losses(box_loss), weights, processes)
            losses[name] = self.balancer(cls_total, value, positives)
            metrics[f"{name.removeprefix('loss_')}_unbalanced"] = value.detach()
        return CriterionOutput(losses, weights, cls_total, metrics)

    def _box_weights(self, matched: MatchedPredictions) -> Tensor:
        if not self.score_weighted:
            return matched.pred_boxes.new_ones(len(matched.pred_boxes))
        scores = matched.logits.detach()[matched.foreground()].float().sigmoid()
        return scores.amax(1)


def weighted_mean(values: Tensor, weights: Tensor, processes: PoolGroup) -> Tensor:
    """`sum(w v) / sum(w)`, (), over all processes; 0 where the weights vanish.

    The value is that of the whole pool; the gradient that of the local part, times the number of
    processes, over which data-parallel training averages.
    """
    total = (values * weights).sum()
    sums = processes.sum(torch.stack([total.detach(), weights.sum()]))
    divisor = torch.where(sums[1] < 1e-10, 1.0, sums[1])
    return with_value(total * processes.size / divisor, sums[0] / divisor)
