"""Criterion of aLRP Loss, which couples classification and localization."""

from typing import Any

from brloss_d2.criteria.matched import CriterionOutput, MatchedPredictions
from brloss_d2.criteria.pooling import PooledCriterion
from brloss_d2.losses import ALRPLoss, Balancer, BoxLoss
from brloss_d2.losses.base import check_numbers, check_types
from brloss_d2.ops import PoolGroup


class ALRPCriterion(PooledCriterion):
    """aLRP Loss (Oksuz et al., NeurIPS 2020) of all rows and classes of a pool.

    Args:
        cls_loss: ranking loss.
        box_loss: loss per positive; times `error_scale` it is the localization error.
        balancer: module that weights the localization component; `EpochSelfBalancer` as published.
        error_scale: `1 / (2 (1 - tau))` of the paper for 1 - GIoU, with `tau` the IoU from which a
            prediction is positive: 1 for tau = 0.5, 1/0.6 for the 0.7 of an RPN.
        pools: `images_per_pool` and `pool`, see `PooledCriterion`.

    Raises:
        ValueError: If an argument is of another kind.

    Example:
        >>> from brloss_d2.losses import EpochSelfBalancer, GIoULoss
        >>> balancer = EpochSelfBalancer(pools_per_epoch=7330)
        >>> ALRPCriterion(ALRPLoss(), GIoULoss(), balancer).error_scale
        1.0
    """

    def __init__(
        self,
        cls_loss: ALRPLoss,
        box_loss: BoxLoss,
        balancer: Balancer,
        *,
        error_scale: float = 1.0,
        **pools: Any,
    ):
        super().__init__(**pools)
        check_types(
            cls_loss=(cls_loss, ALRPLoss),
            box_loss=(box_loss, BoxLoss),
            balancer=(balancer, Balancer),
        )
        check_numbers("> 0", error_scale=error_scale)
        self.cls_loss, self.box_loss, self.balancer = cls_loss, box_loss, balancer
        self.error_scale = error_scale

    @property
    def needs_deltas(self) -> bool:
        """Whether the box loss compares encoded boxes; see `Criterion`."""
        return self.box_loss.on_deltas

    def pool_losses(self, matched: MatchedPredictions, group: PoolGroup) -> CriterionOutput:
        """Compute both components of one pool."""
        errors = matched.box_losses(self.box_loss) * self.error_scale
        losses = self.cls_loss(
            matched.logits, matched.row_labels, errors, positives=matched.positives, group=group
        )
        rank_loss, box_loss = losses["loss_rank"], losses["loss_box"]
        num_positives = group.total(len(errors), errors.device)
        balanced = self.balancer(rank_loss, box_loss, num_positives)
        return CriterionOutput(
            {"loss_rank": rank_loss, "loss_box_reg": balanced},
            box_weights=errors.detach().new_ones(len(errors)),
            cls_total=rank_loss.detach(),
            metrics=lambda: {
                "box_reg_unbalanced": box_loss.detach(),
                "num_positives": len(errors),
                "pool_size": matched.num_decisions,
            },
        )
