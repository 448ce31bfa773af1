"""Average Localization-Recall-Precision Loss."""

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
from brloss_d2.ops import PoolGroup, attach, with_value
from brloss_d2.ops.ramp import prefix_sums
from brloss_d2.ops.search import count_reached

# Below this mass of false positives the published loss assigns no gradient at all; the error it
# would share out is divided by that mass.
MIN_FALSE_POSITIVES = 1e-5


def alrp_loss(
    logits: Tensor,
    labels: Tensor,
    localization_error: Tensor,
    *,
    delta: float = 1.0,
    processes: PoolGroup | None = None,
) -> LossDict:
    """aLRP Loss (Oksuz et al., NeurIPS 2020). See `ALRPLoss`."""
    logits, pool = ranking_pool(logits, labels, localization_error, delta, processes)
    error = pool.collect(localization_error)
    if len(pool) == 0:
        (rank_loss,) = attach(logits, no_positives(pool))
        return {"loss_rank": rank_loss, "loss_box": localization_error.sum() + rank_loss.detach()}
    own = 1.0 if delta == 0 else 0.5  # H(0)
    positives, errors = pool.own_sum(torch.stack([torch.ones_like(error), error]))
    cells = cells_of(pool, bucketed=False)
    fp = cells.false_positives
    rank = positives - own + 1 + fp
    counted = fp > MIN_FALSE_POSITIVES
    received = torch.where(counted, (fp + errors - own * error) / rank, 0.0)
    share = torch.where(counted, received / fp, 0.0)
    (rank_loss,) = attach(logits, ranking_term(pool, cells, (fp / rank).mean(), received, share))
    weights = _box_weights(pool.scores, rank)
    mine = weights[pool.mine].to(localization_error.dtype) * pool.processes.size
    local = (localization_error * mine).sum()
    value = (error * weights).sum() + pool.poison
    return {"loss_rank": rank_loss, "loss_box": with_value(local, value)}


def _box_weights(scores: Tensor, rank: Tensor) -> Tensor:
    """What the error of positive k counts in the localization term: (P,) in score order.

    `mean_i [sum over s_k >= s_i of E_k] / rank(i)` gathers for each k the positives at or below.
    """
    at_or_below = count_reached(scores, scores)
    return prefix_sums(1 / rank).index_select(0, at_or_below) / len(scores)


class ALRPLoss(RankingLoss):
    """aLRP Loss (Oksuz et al., NeurIPS 2020): ranks by, and regresses, localization errors.

    `loss_rank` is the classification component; its gradient takes the errors of higher ranking
    positives into account. `loss_box` is the localization component with the published hard
    ordering of the positives, differentiable in the errors, not in the logits.
    """

    compute = staticmethod(alrp_loss)

    def __init__(self, *, delta: float = 1.0):
        super().__init__(delta=delta)
