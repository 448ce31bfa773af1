"""Rank & Sort Loss and its bucketed form."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.losses.ap import precision_term
from brloss_d2.losses.base import (
    LossDict,
    RankingLoss,
    each_ranking,
    make_pool,
    no_positives,
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

# Below this mass of worse positives the published sorting error is 0, and nobody causes it.
SORT_MIN_MASS = 1e-10


def sorting_term(pool: RankingPool, quality: Tensor) -> tuple[Term, Tensor]:
    """Return the sorting error of the positives with its identity update, and their ranks.

    Oksuz et al., ICCV 2021, eq. 8-9: the current minus the target sorting error, where in the
    target ranking only positives of no lower quality are above a positive. Errors are means of
    `1 - quality`: the difference is that of the mean quality of those and of all.

    Args:
        pool: ranking problem with at least one positive.
        quality: (..., p) quality of the positives of this process.

    Returns:
        `(term, rank)`, with (..., P) `pool.rank_among_positives`.
    """
    ranked, sums = pool.collect(quality), pool.own_sums()
    weights = F.pad(ranked[..., None, :], (0, 0, 1, 0), value=1.0)
    rank, total_quality = sums.of_values(weights).unbind(-2)
    worse = sums.of_worse(ranked)
    mass, worse_quality = worse.of_values(weights).unbind(-2)
    lacking = torch.addcmul(worse_quality, mass, total_quality / rank, value=-1)
    # Those that are not worse hold the positive itself: their mass never vanishes.
    error = (lacking / (mass - rank)).clamp(min=0)
    share = error / mass.clamp(min=SORT_MIN_MASS)
    # Positive k receives `share[i] H(s_k - s_i)` of each better positive i.
    gradient = (worse.of_thresholds(share) - error) * pool.scale
    own = gradient[..., pool.mine].to(pool.decisions.dtype)
    return Term(error.mean(-1), own, pool.where), rank


@each_ranking
@with_kernel("sort", floor=SORT_MIN_MASS)
def rank_sort_loss(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor,
    *,
    delta: float = 0.5,
    positives: Tensor | None = None,
    group: PoolGroup | None = None,
) -> LossDict:
    """Rank & Sort Loss, RS (Oksuz et al., ICCV 2021), exact.

    O((P + N) log P) time and O(P + N) memory for P positives and N negatives.

    Args:
        logits: (M,) logits, floating point of any precision, or those of R rows and K classes,
            (R, K); or (L, M) for L rankings with as many positives each.
        labels: (M,) integers: 1 positive, 0 negative, -1 ignored; or (R,) class of each row, K
            for the background, -1 ignored.
        quality: (P,) quality of the positives in [0, 1], such as the IoU of their boxes, in the
            order in which `labels == 1` occurs.
        delta: half-width of the ramp that smooths the comparison of two logits, in logits, >= 0.
        positives: (P,) int64 positions of the positives in the flat logits, ascending; trusted, as
            are the values of all other tensors then. If None, they are searched for, which makes
            the host wait for a GPU. (L, P) for L rankings: all tensors and terms have that axis.
        group: processes whose decisions are ranked together; all of them have to call. Values are
            those of the whole pool on every process; gradients are such that their average over
            the processes is the gradient of the whole pool.

    Returns:
        `loss_rank`: () in [0, 1], which ranks every positive above all negatives. `loss_sort`: ()
        in [0, 1], which sorts the positives by their quality. Each has a gradient of its own (the
        identity update, eq. 5-6). Both are 0 and attached to the graph if there is no positive,
        NaN if a logit is NaN or infinite.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> logits = torch.tensor([0.0, 3.0, 1.0, -3.0], requires_grad=True)
        >>> labels, quality = torch.tensor([1, 0, 1, 0]), torch.tensor([0.9, 0.6])
        >>> losses = rank_sort_loss(logits, labels, quality)
        >>> {name: round(value.item(), 4) for name, value in losses.items()}
        {'loss_rank': 0.5333, 'loss_sort': 0.1}
        >>> sum(losses.values()).backward()
    """
    logits, pool = make_pool(logits, labels, positives, delta, group)
    return _rank_and_sort(logits, pool, quality, exact_negatives)


@each_ranking
@with_kernel("sort", bucketed=True, floor=SORT_MIN_MASS)
def bucketed_rank_sort_loss(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor,
    *,
    delta: float = 0.5,
    positives: Tensor | None = None,
    group: PoolGroup | None = None,
) -> LossDict:
    """Bucketed Rank & Sort Loss, BRS (Yavuz et al., ECCV 2024).

    `rank_sort_loss` with the negatives between two successive positives replaced by their mean.

    Args:
        logits: (M,) logits, floating point of any precision, or those of R rows and K classes,
            (R, K); or (L, M) for L rankings with as many positives each.
        labels: (M,) integers: 1 positive, 0 negative, -1 ignored; or (R,) class of each row, K
            for the background, -1 ignored.
        quality: (P,) quality of the positives in [0, 1], such as the IoU of their boxes, in the
            order in which `labels == 1` occurs.
        delta: half-width of the ramp that smooths the comparison of two logits, in logits, >= 0.
        positives: (P,) int64 positions of the positives in the flat logits, ascending; trusted, as
            are the values of all other tensors then. If None, they are searched for, which makes
            the host wait for a GPU. (L, P) for L rankings: all tensors and terms have that axis.
        group: processes whose decisions are ranked together; all of them have to call. Values are
            those of the whole pool on every process; gradients are such that their average over
            the processes is the gradient of the whole pool.

    Returns:
        `loss_rank` and `loss_sort`; see `rank_sort_loss`.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> logits = torch.tensor([0.0, 3.0, 1.0, -3.0], requires_grad=True)
        >>> labels, quality = torch.tensor([1, 0, 1, 0]), torch.tensor([0.9, 0.6])
        >>> losses = bucketed_rank_sort_loss(logits, labels, quality)
        >>> {name: round(value.item(), 4) for name, value in losses.items()}
        {'loss_rank': 0.5333, 'loss_sort': 0.1}
    """
    logits, pool = make_pool(logits, labels, positives, delta, group)
    return _rank_and_sort(logits, pool, quality, bucketed_negatives)


def _rank_and_sort(
    logits: Tensor,
    pool: RankingPool,
    quality: Tensor,
    summarize: Callable[[RankingPool], Negatives],
) -> LossDict:
    """Attach both terms to the logits."""
    if len(pool) == 0:
        terms = no_positives(pool), no_positives(pool)
    else:  # the table of the positives is gone before that with the negatives is made
        sort, rank = sorting_term(pool, quality)
        terms = precision_term(pool, summarize(pool), rank), sort
    rank_loss, sort_loss = attach(logits, *terms)
    return {"loss_rank": rank_loss, "loss_sort": sort_loss}


class RankSortLoss(RankingLoss):
    """Module form of `rank_sort_loss`.

    Args:
        delta: half-width of the ramp, in logits, >= 0.

    Example:
        >>> RankSortLoss()
        RankSortLoss(delta=0.5)
    """

    compute = staticmethod(rank_sort_loss)


class BucketedRankSortLoss(RankingLoss):
    """Module form of `bucketed_rank_sort_loss`.

    Args:
        delta: half-width of the ramp, in logits, >= 0.

    Example:
        >>> BucketedRankSortLoss(delta=0.25)
        BucketedRankSortLoss(delta=0.25)
    """

    compute = staticmethod(bucketed_rank_sort_loss)
