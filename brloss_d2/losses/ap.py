"""AP Loss and its bucketed form."""

from torch import Tensor

from brloss_d2.losses.base import (
    LossDict,
    RankingLoss,
    cells_of,
    no_positives,
    ranking_pool,
    ranking_term,
    share_out,
)
from brloss_d2.ops import PoolGroup, RankingPool, Term, attach


def precision_errors(
    pool: RankingPool, false_positives: Tensor, own_term: float | None = None
) -> Tensor:
    """`FP(i) / rank(i)`, (P,); every positive counts itself as `own_term`, or as H(0)."""
    positives = pool.rank_among_positives
    if own_term is not None and pool.delta > 0:
        positives = positives - 0.5 + own_term
    return false_positives / (positives + false_positives)


def precision_term(pool: RankingPool, *, bucketed: bool) -> Term:
    """Mean of FP/rank with its identity update: the ranking term of RS, BRS and BAP."""
    cells = cells_of(pool, bucketed=bucketed)
    fp = cells.false_positives
    error = precision_errors(pool, fp)
    return ranking_term(pool, cells, error.mean(), error, share_out(error, fp))


def ap_loss(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor | None = None,
    *,
    delta: float = 1.0,
    processes: PoolGroup | None = None,
) -> LossDict:
    """AP Loss with interpolated precision (Chen et al., CVPR 2019). See `APLoss`."""
    logits, pool = ranking_pool(logits, labels, quality, delta, processes)
    if len(pool) == 0:
        return {"loss_rank": attach(logits, no_positives(pool))[0]}
    cells = cells_of(pool, bucketed=False)
    fp = cells.false_positives
    # Interpolation: the error of i is the smallest among the positives that do not rank above it.
    error = precision_errors(pool, fp, own_term=1.0).cummin(0).values
    term = ranking_term(pool, cells, error.mean(), error, share_out(error, fp))
    return {"loss_rank": attach(logits, term)[0]}


def bucketed_ap_loss(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor | None = None,
    *,
    delta: float = 1.0,
    processes: PoolGroup | None = None,
) -> LossDict:
    """Bucketed AP Loss (Yavuz et al., ECCV 2024). See `BucketedAPLoss`."""
    logits, pool = ranking_pool(logits, labels, quality, delta, processes)
    if len(pool) == 0:
        return {"loss_rank": attach(logits, no_positives(pool))[0]}
    return {"loss_rank": attach(logits, precision_term(pool, bucketed=True))[0]}


class APLoss(RankingLoss):
    """AP Loss (Chen et al., CVPR 2019): 1 - average precision, interpolated as published.

    Ignores the quality: every positive counts the same. O((P + N) log P).
    """

    compute = staticmethod(ap_loss)
    needs_quality = False

    def __init__(self, *, delta: float = 1.0):
        super().__init__(delta=delta)


class BucketedAPLoss(RankingLoss):
    """Bucketed AP Loss, BAP (Yavuz et al., ECCV 2024).

    The negatives between two successive positives act as their mean. As published it counts a
    positive itself as H(0) and does not interpolate: it is the ranking term of BRS, not a bucketed
    version of `APLoss`. Ignores the quality.
    """

    compute = staticmethod(bucketed_ap_loss)
    needs_quality = False

    def __init__(self, *, delta: float = 1.0):
        super().__init__(delta=delta)
