"""Average Localisation-Recall-Precision Loss."""

import torch
from torch import Tensor

from brloss_d2.losses.base import (
    LossDict,
    RankingLoss,
    cells_of,
    no_positives,
    ranking_pool,
    ranking_term,
)
from brloss_d2.ops import attach
from brloss_d2.ops.reference import ALRP_MIN_FALSE_POSITIVES


def alrp_loss(
    logits: Tensor, labels: Tensor, localisation_error: Tensor, *, delta: float = 1.0
) -> LossDict:
    """aLRP Loss (Oksuz et al., NeurIPS 2020). See `ALRPLoss`."""
    logits, pool = ranking_pool(logits, labels, localisation_error, delta)
    if len(pool) == 0:
        (rank_loss,) = attach(logits, no_positives(pool))
        return {"loss_rank": rank_loss, "loss_box": localisation_error.sum() + rank_loss.detach()}
    error = localisation_error.detach().double()[pool.order]
    own = 1.0 if delta == 0 else 0.5  # H(0)
    positives, errors = pool.own_sum(torch.stack([torch.ones_like(error), error]))
    cells = cells_of(pool, bucketed=False)
    fp = cells.false_positives
    rank = positives - own + 1 + fp
    counted = fp > ALRP_MIN_FALSE_POSITIVES
    received = torch.where(counted, (fp + errors - own * error) / rank, 0.0)
    share = torch.where(counted, received / fp, 0.0)
    term = ranking_term(pool, cells, (fp / rank).mean(), received, share)
    (rank_loss,) = attach(logits, term)
    weights = _box_weights(pool.scores, rank).to(localisation_error.dtype)
    return {
        "loss_rank": rank_loss,
        "loss_box": (localisation_error[pool.order] * weights).sum() + rank_loss.detach() * 0,
    }


def _box_weights(scores: Tensor, rank: Tensor) -> Tensor:
    """What the error of positive k counts in the localisation term: (P,) in score order.

    `mean_i [sum over s_k >= s_i of E_k] / rank(i)` gathers for each k the positives at or below.
    """
    at_or_below = torch.searchsorted(scores, scores, right=True)
    return (1 / rank).cumsum(0)[at_or_below - 1] / len(scores)


class ALRPLoss(RankingLoss):
    """aLRP Loss (Oksuz et al., NeurIPS 2020): ranks by, and regresses, localisation errors.

    `loss_rank` is the classification component; its gradient takes the errors of higher ranking
    positives into account. `loss_box` is the localisation component with the published hard
    ordering of the positives, differentiable in the errors, not in the logits.
    """

    def __init__(self, *, delta: float = 1.0):
        super().__init__(delta=delta)

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor) -> LossDict:
        return alrp_loss(logits, labels, quality, delta=self.delta)
