"""AP Loss and its bucketed form."""

import torch
from torch import Tensor

from brloss_d2.losses.base import (
    LossDict,
    RankingLoss,
    each_ranking,
    make_pool,
    no_positives,
    ranking_term,
    with_kernel,
)
from brloss_d2.ops import (
    Negatives,
    PoolGroup,
    RankingPool,
    Term,
    attach,
    bucketed_negatives,
    exact_negatives,
)


def precision_term(
    pool: RankingPool, negatives: Negatives, rank: Tensor, *, interpolated: bool = False
) -> Term:
    """Return the mean of FP(i) / rank(i) over the positives with its identity update.

    Args:
        pool: ranking problem with at least one positive.
        negatives: negatives of the pool.
        rank: (P,) `pool.rank_among_positives`.
        interpolated: whether a positive counts itself as 1 instead of H(0) = 1/2 and takes the
            smallest error of the positives that do not rank above it, as in AP Loss; else the
            ranking term of RS, BRS and BAP.
    """
    fp = negatives.false_positives
    if interpolated and pool.delta > 0:
        rank = rank + 0.5
    share = (rank + fp).reciprocal()
    error = fp * share
    if interpolated:
        error = torch.cummin(error, -1).values
        share = error / fp
    return ranking_term(pool, negatives, error.mean(-1), error, share)


@each_ranking
@with_kernel("interpolated")
def ap_loss(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor | None = None,
    *,
    delta: float = 1.0,
    positives: Tensor | None = None,
    group: PoolGroup | None = None,
) -> LossDict:
    """AP Loss (Chen et al., CVPR 2019): 1 - average precision, interpolated as published.

    O((P + N) log P) time and O(P + N) memory for P positives and N negatives.

    Args:
        logits: (M,) logits, floating point of any precision, or those of R rows and K classes,
            (R, K); or (L, M) for L rankings with as many positives each.
        labels: (M,) integers: 1 positive, 0 negative, -1 ignored; or (R,) class of each row, K
            for the background, -1 ignored.
        quality: not used; every positive counts the same.
        delta: half-width of the ramp that smooths the comparison of two logits, in logits, >= 0.
        positives: (P,) int64 positions of the positives in the flat logits, ascending; trusted, as
            are the values of all other tensors then. If None, they are searched for, which makes
            the host wait for a GPU. (L, P) for L rankings: all tensors and terms have that axis.
        group: processes whose decisions are ranked together; all of them have to call. Values are
            those of the whole pool on every process; gradients are such that their average over
            the processes is the gradient of the whole pool.

    Returns:
        `{"loss_rank": ()}` in [0, 1] with the gradient of eq. 10. It is 0 and attached to the graph
        if there is no positive, NaN if a logit is NaN or infinite.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> logits = torch.tensor([2.0, 1.0, -1.0], requires_grad=True)
        >>> losses = ap_loss(logits, torch.tensor([1, 0, 0]), delta=0.0)
        >>> round(losses["loss_rank"].item(), 4)
        0.0
    """
    logits, pool = make_pool(logits, labels, positives, delta, group)
    if len(pool) == 0:
        return {"loss_rank": attach(logits, no_positives(pool))[0]}
    rank = pool.rank_among_positives
    term = precision_term(pool, exact_negatives(pool), rank, interpolated=True)
    return {"loss_rank": attach(logits, term)[0]}


@each_ranking
@with_kernel("precision", bucketed=True)
def bucketed_ap_loss(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor | None = None,
    *,
    delta: float = 1.0,
    positives: Tensor | None = None,
    group: PoolGroup | None = None,
) -> LossDict:
    """Bucketed AP Loss, BAP (Yavuz et al., ECCV 2024).

    The negatives between two successive positives act as their mean. As published, a positive
    counts itself as H(0) and nothing is interpolated: it is the ranking term of BRS, not a bucketed
    version of `ap_loss`.

    Args:
        logits: (M,) logits, floating point of any precision, or those of R rows and K classes,
            (R, K); or (L, M) for L rankings with as many positives each.
        labels: (M,) integers: 1 positive, 0 negative, -1 ignored; or (R,) class of each row, K
            for the background, -1 ignored.
        quality: not used; every positive counts the same.
        delta: half-width of the ramp that smooths the comparison of two logits, in logits, >= 0.
        positives: (P,) int64 positions of the positives in the flat logits, ascending; trusted, as
            are the values of all other tensors then. If None, they are searched for, which makes
            the host wait for a GPU. (L, P) for L rankings: all tensors and terms have that axis.
        group: processes whose decisions are ranked together; all of them have to call. Values are
            those of the whole pool on every process; gradients are such that their average over
            the processes is the gradient of the whole pool.

    Returns:
        `{"loss_rank": ()}` in [0, 1]; see `ap_loss`.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> logits = torch.tensor([0.0, 3.0, -3.0], requires_grad=True)
        >>> losses = bucketed_ap_loss(logits, torch.tensor([1, 0, 0]))
        >>> round(losses["loss_rank"].item(), 4)
        0.6667
    """
    logits, pool = make_pool(logits, labels, positives, delta, group)
    if len(pool) == 0:
        return {"loss_rank": attach(logits, no_positives(pool))[0]}
    rank = pool.rank_among_positives  # from a table that is gone before the next one is made
    term = precision_term(pool, bucketed_negatives(pool), rank)
    return {"loss_rank": attach(logits, term)[0]}


class APLoss(RankingLoss):
    """Module form of `ap_loss`.

    Args:
        delta: half-width of the ramp, in logits, >= 0.

    Example:
        >>> APLoss(delta=1.0)
        APLoss(delta=1.0)
    """

    compute = staticmethod(ap_loss)
    needs_quality = False

    def __init__(self, *, delta: float = 1.0):
        super().__init__(delta=delta)


class BucketedAPLoss(APLoss):
    """Module form of `bucketed_ap_loss`.

    Args:
        delta: half-width of the ramp, in logits, >= 0.

    Example:
        >>> BucketedAPLoss()
        BucketedAPLoss(delta=1.0)
    """

    compute = staticmethod(bucketed_ap_loss)
