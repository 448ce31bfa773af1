"""Rank & Sort Loss and its bucketed form."""

from typing import NamedTuple

import torch
from torch import Tensor

from brloss_d2.losses.ap import precision_term
from brloss_d2.losses.base import LossDict, RankingLoss, no_positives, ranking_pool, share_out
from brloss_d2.ops import PoolGroup, RankingPool, Term, attach, prefix_ramp_sum
from brloss_d2.ops.search import count_below

# Below this mass of worse positives the published sorting error is 0.
SORT_MIN_MASS = 1e-10


def sorting_term(pool: RankingPool, quality: Tensor) -> Term:
    """The sorting error of the positives with its identity update (Oksuz et al. 2021, eq. 8-9).

    Args:
        quality: (p,) of the positives of this process, in the order of the labels.
    """
    order = QualityOrder.of(pool.collect(quality))
    error, mass = _sorting_errors(pool, order)
    share = share_out(error, mass, SORT_MIN_MASS)
    error = torch.where(mass > SORT_MIN_MASS, error, 0.0)
    gradient = (_received(pool, order, share) - error) * pool.scale + pool.poison
    own = gradient[pool.mine].to(pool.logits.dtype)
    return Term(error.mean() + pool.poison, own, pool.index)


class QualityOrder(NamedTuple):
    """The positives in ascending order of quality.

    Attributes:
        quality: (P,) float64, in score order.
        ascending: (P,) int64, the positives from the worst to the best.
        worse: (P,) how many have a lower quality than each, in score order.
        better: (P,) how many have a higher one.
    """

    quality: Tensor
    ascending: Tensor
    worse: Tensor
    better: Tensor

    @classmethod
    def of(cls, quality: Tensor) -> "QualityOrder":
        ranked, ascending = quality.sort()
        worse, better = count_below(quality, ranked), count_below(-quality, -ranked.flip(0))
        return cls(quality, ascending, worse, better)


def _sorting_errors(pool: RankingPool, order: QualityOrder) -> tuple[Tensor, Tensor]:
    """Current minus target sorting error, and the mass of worse positives above: (P,) each.

    Sums over the worse positives (lower quality) are taken directly, those over the others by
    difference: these hold the positive itself and never vanish.
    """
    weights = torch.stack([torch.ones_like(order.quality), 1 - order.quality])
    worse = prefix_ramp_sum(
        pool.scores,
        order.worse,
        pool.scores[order.ascending],
        weights.index_select(1, order.ascending),
        pool.delta,
    )
    everyone = torch.stack([pool.rank_among_positives, pool.own_sum(weights[1])])
    others = everyone - worse
    error = everyone[1] / everyone[0] - others[1] / others[0]
    return error.clamp(min=0), worse[0]


def _received(pool: RankingPool, order: QualityOrder, share: Tensor) -> Tensor:
    """`sum of share[i] H(s_k - s_i)` over the better positives i, for every positive k: (P,)."""
    descending = order.ascending.flip(0)
    return prefix_ramp_sum(
        -pool.scores, order.better, -pool.scores[descending], share[descending], pool.delta
    )


def _rank_sort(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor,
    delta: float,
    processes: PoolGroup | None,
    *,
    bucketed: bool,
) -> LossDict:
    logits, pool = ranking_pool(logits, labels, quality, delta, processes)
    if len(pool) == 0:
        terms = no_positives(pool), no_positives(pool)
    else:
        terms = precision_term(pool, bucketed=bucketed), sorting_term(pool, quality)
    rank, sort = attach(logits, *terms)
    return {"loss_rank": rank, "loss_sort": sort}


def rank_sort_loss(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor,
    *,
    delta: float = 0.5,
    processes: PoolGroup | None = None,
) -> LossDict:
    """Rank & Sort Loss (Oksuz et al., ICCV 2021). See `RankSortLoss`."""
    return _rank_sort(logits, labels, quality, delta, processes, bucketed=False)


def bucketed_rank_sort_loss(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor,
    *,
    delta: float = 0.5,
    processes: PoolGroup | None = None,
) -> LossDict:
    """Bucketed Rank & Sort Loss (Yavuz et al., ECCV 2024). See `BucketedRankSortLoss`."""
    return _rank_sort(logits, labels, quality, delta, processes, bucketed=True)


class RankSortLoss(RankingLoss):
    """Rank & Sort Loss, RS (Oksuz et al., ICCV 2021), exact.

    `loss_rank` ranks every positive above all negatives; `loss_sort` sorts the positives by
    their quality. O((P + N) log P) time, O(P + N) memory.
    """

    compute = staticmethod(rank_sort_loss)

    def __init__(self, *, delta: float = 0.5):
        super().__init__(delta=delta)


class BucketedRankSortLoss(RankingLoss):
    """Bucketed Rank & Sort Loss, BRS (Yavuz et al., ECCV 2024).

    `RankSortLoss` whose negatives act, between two successive positives, as their mean.
    """

    compute = staticmethod(bucketed_rank_sort_loss)

    def __init__(self, *, delta: float = 0.5):
        super().__init__(delta=delta)
