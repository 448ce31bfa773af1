"""Criterion of the ranking losses without coupling: AP, BAP, RS, BRS."""

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from brloss_d2.criteria.matched import (
    BoxLosses,
    CriterionOutput,
    MatchedPredictions,
    named_box_losses,
    of_last_layer,
    weighted,
)
from brloss_d2.criteria.pooling import PooledCriterion, weighted_mean
from brloss_d2.criteria.quality import correlation_loss
from brloss_d2.losses import ALRPLoss, Balancer, CorrelationLoss, RankingLoss
from brloss_d2.losses.base import LossDict, check_numbers, check_types
from brloss_d2.ops import PoolGroup, ranks_together


class RankingCriterion(PooledCriterion):
    """Ranking loss of all rows and classes of a pool, and box losses weighted by score.

    Oksuz et al., ICCV 2021 (RS) and Yavuz et al., ECCV 2024 (BRS). Every pair of a row and a class
    is one decision of the pool; the quality of a positive is that of `MatchedPredictions`, the IoU
    of its predicted box with its ground truth unless the head says otherwise. Nothing is sampled.

    Args:
        cls_loss: ranking loss.
        box_loss: loss per positive, or several by name: `{"loss_l1": ..., "loss_giou": ...}`;
            `{}` for a head without boxes.
        balancer: module that weights each box loss against the ranking terms.
        score_weighted: whether box losses are averaged with the highest class score of their row as
            weight, else with equal weights.
        disjoint_is_negative: whether a foreground row of quality 0, whose box does not touch its
            object, is ranked among the negatives, as published; else it is a positive of quality 0.
        correlation: auxiliary term over all positives of this process in the pool, `loss_corr`;
            nothing is balanced against it.
        cls_weights: weights of the terms of `cls_loss` by name; the default is 1.
        box_weights: weights of the box losses by name, before they are balanced; the default is 1.
        pools: `images_per_pool` and `pool`, see `PooledCriterion`.

    Raises:
        ValueError: If an argument is of another kind, several box losses share a balancer that
            keeps a state, `box_weights` names another loss, or `cls_loss` is an `ALRPLoss`.

    Example:
        >>> from brloss_d2.losses import GIoULoss, RankSortLoss, SelfBalancer
        >>> criterion = RankingCriterion(RankSortLoss(), GIoULoss(), SelfBalancer())
        >>> boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
        >>> logits, labels = torch.tensor([[2.0], [-2.0]]), torch.tensor([0, 1])
        >>> output = criterion(MatchedPredictions(logits, labels, boxes, boxes, num_classes=1))
        >>> sorted(output.losses)
        ['loss_box_reg', 'loss_rank', 'loss_sort']
    """

    def __init__(
        self,
        cls_loss: RankingLoss,
        box_loss: BoxLosses,
        balancer: Balancer,
        *,
        score_weighted: bool = True,
        disjoint_is_negative: bool = False,
        correlation: CorrelationLoss | None = None,
        cls_weights: Mapping[str, float] | None = None,
        box_weights: Mapping[str, float] | None = None,
        **pools: Any,
    ):
        super().__init__(**pools)
        check_types(cls_loss=(cls_loss, RankingLoss), balancer=(balancer, Balancer))
        check_numbers(">= 0", **(cls_weights or {}), **(box_weights or {}))
        if isinstance(cls_loss, ALRPLoss):
            raise ValueError("ALRPLoss ranks by localization errors, not by quality: ALRPCriterion")
        self.cls_loss, self.balancer = cls_loss, balancer
        self.box_losses = named_box_losses(box_loss)
        if len(self.box_losses) > 1 and len(list(balancer.buffers())) > 0:
            raise ValueError(f"{type(balancer).__name__} keeps a state: it balances one box loss")
        self.score_weighted, self.disjoint_is_negative = score_weighted, disjoint_is_negative
        if correlation is not None:
            check_types(correlation=(correlation, CorrelationLoss))
        self.correlation = correlation
        self.cls_weights, self.box_weights = dict(cls_weights or {}), dict(box_weights or {})
        if self.box_weights.keys() - self.box_losses.keys():
            raise ValueError(
                f"box_weights names {list(self.box_weights)}, losses are {list(self.box_losses)}"
            )

    @property
    def needs_deltas(self) -> bool:
        """Whether a box loss compares encoded boxes; see `Criterion`."""
        return any(loss.on_deltas for loss in self.box_losses.values())

    def layers(self, matched: MatchedPredictions) -> CriterionOutput:
        """Compute the losses of each layer, (L,) by name; see `Criterion.layers`."""
        one_pool = self.images_per_pool is None or matched.num_images <= self.images_per_pool
        stateless = len(list(self.balancer.buffers())) == 0
        if self.pool == "local" and one_pool and stateless and self.correlation is None:
            return of_last_layer(self(matched))
        return super().layers(matched)

    def pool_losses(self, matched: MatchedPredictions, group: PoolGroup) -> CriterionOutput:
        """Compute ranking terms and box losses of one pool, or of one in each layer."""
        terms = self._ranking_terms(matched, group)
        if self.cls_weights.keys() - terms.keys():
            raise ValueError(f"cls_weights names {list(self.cls_weights)}, terms are {list(terms)}")
        losses = {name: weighted(x, self.cls_weights.get(name, 1.0)) for name, x in terms.items()}
        cls_total = reduce(add, losses.values()).detach()
        if self.score_weighted:
            weights = matched.logits.detach()[matched.foreground].float().sigmoid().amax(1)
        else:
            weights = matched.gt_boxes.new_ones(len(matched.gt_boxes))
        by_layer = matched.by_layer(weights)
        num_positives = group.total(by_layer.shape[-1], weights.device)
        unbalanced = {}
        for name, box_loss in self.box_losses.items():
            values = matched.by_layer(matched.box_losses(box_loss))
            mean = weighted_mean(values, by_layer, group)
            weighted_loss = weighted(mean, self.box_weights.get(name, 1.0))
            losses[name] = self.balancer(cls_total, weighted_loss, num_positives)
            unbalanced[f"{name.removeprefix('loss_')}_unbalanced"] = mean.detach()
        if self.correlation is not None:
            losses["loss_corr"] = correlation_loss(self.correlation, matched)
        return CriterionOutput(
            losses,
            weights,
            cls_total,
            metrics=lambda: {
                "num_positives": by_layer.shape[-1],
                "pool_size": matched.num_decisions,
                **unbalanced,
            },
        )

    def _ranking_terms(self, matched: MatchedPredictions, group: PoolGroup) -> LossDict:
        """Return the terms of `cls_loss` by name: (), or (L,) of L layers."""
        count = matched.num_layers or 1
        quality = matched.localization_quality().view(count, -1)
        kept = matched.above_zero(quality) if self.disjoint_is_negative else [None] * count
        positives = matched.positives.view(quality.shape)
        all_kept = all(rows is None or len(rows) == quality.shape[1] for rows in kept)
        if count > 1 and all_kept and ranks_together(positives):
            logits, labels = (
                matched.by_layer(x) for x in (matched.logits, matched.binary_labels())
            )
            return self.cls_loss(logits, labels, quality, positives=positives % logits.shape[1])
        layers = [matched] if matched.num_layers is None else matched.layers()
        terms = [
            self._terms_of_pool(layer, values, rows, group)
            for layer, values, rows in zip(layers, quality, kept, strict=True)
        ]
        if matched.num_layers is None:
            return terms[0]
        return {name: torch.stack([x[name] for x in terms]) for name in terms[0]}

    def _terms_of_pool(
        self, matched: MatchedPredictions, quality: Tensor, kept: Tensor | None, group: PoolGroup
    ) -> LossDict:
        """Return the terms of `cls_loss` of one pool; foreground rows not `kept` are negatives."""
        logits, labels, positives = matched.logits, matched.row_labels, matched.positives
        if kept is not None and len(kept) < len(quality):
            positives, quality = positives[kept], quality[kept]
            # A label for each decision: those of the others are no longer the classes of rows.
            logits, labels = logits.flatten(), matched.binary_labels(positives).flatten()
        return self.cls_loss(logits, labels, quality, positives=positives, group=group)
