"""The published algorithms, written again from their description, as reference for the times.

They compute the same numbers as our losses (tests/benchmarks/test_published.py). The loops visit
the positives one by one and touch all relevant negatives each time, O(P (P + N)). The bucketed form
sorts all logits, averages each run of negatives in a loop, and compares positives with buckets and
with each other in full matrices, O((P + N) log(P + N) + P^2) time and O(P^2) memory.

Like the published code they return one gradient for both terms of RS and BRS: it belongs to
`loss_rank`, and the gradient that arrives at `loss_sort` has no effect.
"""

from typing import Any

import torch
from torch import Tensor

_EPS = 1e-10


class _Stored(torch.autograd.Function):
    """Values together with a gradient that was computed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, gradient: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(gradient)
        return values

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * upstream[0], *[None] * len(upstream), None)


def _ramp(x: Tensor, delta: float) -> Tensor:
    """Return H(x), from 0 at -delta to 1 at delta."""
    if delta == 0:
        return (x >= 0).to(x.dtype)
    return (x / (2 * delta) + 0.5).clamp(0, 1)


def _split(logits: Tensor, labels: Tensor, delta: float) -> tuple[Tensor, ...]:
    """Return the logits of the positives and of the negatives in reach of one, and the indices."""
    scores = logits.detach()
    positives = (labels == 1).nonzero().squeeze(1)
    p = scores[positives]
    negatives = ((labels == 0) & (scores >= p.min() - delta)).nonzero().squeeze(1)
    return p, scores[negatives], positives, negatives


def _attach(
    logits: Tensor, parts: tuple[tuple[Tensor, Tensor], ...], *values: Tensor
) -> tuple[Tensor, ...]:
    """Return the values with a gradient that is given by pairs of indices and elements."""
    gradient = torch.zeros_like(logits)
    for where, part in parts:
        gradient[where] = part
    return _Stored.apply(logits, gradient, *values)


def rank_sort_loop(
    logits: Tensor, labels: Tensor, quality: Tensor, *, delta: float = 0.5
) -> dict[str, Tensor]:
    """Compute RS Loss (Oksuz et al., ICCV 2021) in a loop over the positives, at least one."""
    p, n, positives, negatives = _split(logits, labels, delta)
    p_gradient, n_gradient = torch.zeros_like(p), torch.zeros_like(n)
    rank_errors, sort_errors = torch.zeros_like(p), torch.zeros_like(p)
    for i in range(len(p)):
        h_pos, h_neg = _ramp(p - p[i], delta), _ramp(n - p[i], delta)
        position, false_positives = h_pos.sum(), h_neg.sum()
        rank_errors[i] = false_positives / (position + false_positives)
        if false_positives > _EPS:
            n_gradient += h_neg * (rank_errors[i] / false_positives)
        not_worse = h_pos * (quality >= quality[i])
        target = (not_worse * (1 - quality)).sum() / not_worse.sum()
        sort_errors[i] = (h_pos * (1 - quality)).sum() / position - target
        worse = h_pos * (quality < quality[i])
        mass = worse.sum()
        p_gradient[i] -= rank_errors[i]
        if mass > _EPS:
            p_gradient[i] -= sort_errors[i]
            p_gradient += worse * (sort_errors[i] / mass)
    parts = ((positives, p_gradient / len(p)), (negatives, n_gradient / len(p)))
    rank, sort = _attach(logits, parts, rank_errors.mean(), sort_errors.mean())
    return {"loss_rank": rank, "loss_sort": sort}


def average_precision_loop(
    logits: Tensor, labels: Tensor, quality: Tensor | None = None, *, delta: float = 1.0
) -> dict[str, Tensor]:
    """Compute AP Loss (Chen et al., CVPR 2019) in a loop over the positives, lowest score first."""
    p, n, positives, negatives = _split(logits, labels, delta)
    precisions, n_gradient = torch.zeros_like(p), torch.zeros_like(n)
    best = p.new_zeros(())
    for i in p.argsort():
        h_pos, h_neg = _ramp(p - p[i], delta), _ramp(n - p[i], delta)
        h_pos[i] = 1
        position, false_positives = h_pos.sum(), h_neg.sum()
        rank = position + false_positives
        precision = position / rank
        share = h_neg / rank
        if precision >= best:
            best = precision
        else:
            share *= (1 - best) / (1 - precision)
        n_gradient += share
        precisions[i] = best
    parts = ((positives, (precisions - 1) / len(p)), (negatives, n_gradient / len(p)))
    (value,) = _attach(logits, parts, 1 - precisions.mean())
    return {"loss_rank": value}


def bucketed_rank_sort_matrices(
    logits: Tensor, labels: Tensor, quality: Tensor, *, delta: float = 0.5
) -> dict[str, Tensor]:
    """Compute BRS Loss (Yavuz et al., ECCV 2024) by one sort, a mean per bucket and full matrices.

    As published, the sort decides on which side of an equal positive a negative falls.
    """
    p, n, positives, negatives = _split(logits, labels, delta)
    mean, size, order, bucket_of = _buckets(p, n)
    h_bucket = _ramp(mean[None, :] - p[:, None], delta)
    h_pos = _ramp(p[None, :] - p[:, None], delta)
    position, false_positives = h_pos.sum(1), (h_bucket * size).sum(1)
    rank_error = false_positives / (position + false_positives)
    share = torch.where(false_positives > _EPS, rank_error / false_positives, 0.0)
    n_gradient = torch.zeros_like(n)
    n_gradient[order] = (share[:, None] * h_bucket).sum(0)[bucket_of]
    # Sorting error of each positive, which is shared among the worse positives above it.
    not_worse = h_pos * (quality[None, :] >= quality[:, None])
    worse = h_pos * (quality[None, :] < quality[:, None])
    target = not_worse @ (1 - quality) / not_worse.sum(1)
    sort_error = h_pos @ (1 - quality) / position - target
    mass = worse.sum(1)
    share = torch.where(mass > _EPS, sort_error / mass, 0.0)
    sort_gradient = (share[:, None] * worse).sum(0) - torch.where(mass > _EPS, sort_error, 0.0)
    p_gradient = (sort_gradient - rank_error) / len(p)
    parts = ((positives, p_gradient), (negatives, n_gradient / len(p)))
    rank, sort = _attach(logits, parts, rank_error.mean(), sort_error.mean())
    return {"loss_rank": rank, "loss_sort": sort}


def _buckets(p: Tensor, n: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find the runs of negatives between positives, highest score first.

    Returns:
        Mean (B,) and size (B,) of each bucket, indices of the negatives in descending order (N,),
        and the bucket of each of these (N,).
    """
    ranked, order = torch.cat([p, n]).sort(descending=True)
    is_negative = order >= len(p)
    above = (~is_negative).cumsum(0)[is_negative]
    bucket, size = above.unique_consecutive(return_inverse=True, return_counts=True)[1:]
    runs = ranked[is_negative].split(size.tolist())
    mean = torch.stack([run.mean() for run in runs]) if len(n) else n
    return mean, size.to(n.dtype), order[is_negative] - len(p), bucket
