"""Whole ranking losses as Triton kernels: nine or ten launches forward, two backward, no wait.

    sort        positives by score (torch)
    _cut        edges of the cells: breakpoints of the ramps, or the positives for bucketed losses
    cells       first pass over the logits: number and mean distance of the negatives in each cell
    _rank       errors of each positive, from all pairs with positives and cells
    _level      gradient in each cell, from all pairs with positives
    _settle     gradient of each positive, and the values
    cells       second pass over the logits, in the backward pass: the gradient
    _overwrite  that of the positives

A ramp is linear within a cell between breakpoints: there, negatives act *exactly* as their mean,
times their number. So exact and bucketed losses differ in the edges alone.

All algebra of positives and cells is float64, on raw logits: an outlier costs no digits. Sums are
taken in fixed order: the same bits twice. No gradient is kept for the backward pass, which reads
the logits again: 12 bytes move per float32 logit, and 2 x 8 / K of labels of rows. Memory of the
size of the logits is their gradient.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from brloss_d2.ops.autograd import attach_function
from brloss_d2.ops.triton.cells import LabeledLogits, double, first_step, store
from brloss_d2.ops.triton.launch import current_device

# Names of the second terms.
_SECOND = {"sort": "loss_sort", "localize": "loss_box"}
_BLOCK = 1024
# Pairs of a tile.
_ROWS, _COLUMNS = 16, 64


@triton.jit
def _ramp(x, DELTA: tl.constexpr):
    """H(x)."""
    if DELTA == 0:
        return tl.where(x >= 0, 1.0, 0.0).to(tl.float64)
    else:
        return tl.minimum(tl.maximum(x * double(0.5 / DELTA) + 0.5, 0.0), 1.0)


@triton.jit
def _count_ends(ranked, shift: tl.constexpr, end, num, step, STRICT: tl.constexpr):
    """Number of positives s with `s + shift` up to `end` (STRICT: below it)."""
    count = tl.zeros_like(end).to(tl.int32)
    while step > 0:
        probe = count + step
        score = tl.load(ranked + probe - 1, mask=probe <= num, other=0.0).to(tl.float64)
        start = score + double(shift)
        passed = start < end if STRICT else start <= end
        count = tl.where((probe <= num) & passed, probe, count)
        step //= 2
    return count


@triton.jit(do_not_specialize=["step"])  # a number that changes
def _cut(ranked, edges, num, step, DELTA: tl.constexpr, BUCKETS: tl.constexpr, BLOCK: tl.constexpr):
    """Write the edges of the cells in ascending order; below the first one, H is 0."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = i < num
    score = tl.load(ranked + i, mask=known, other=0.0).to(tl.float64)
    if DELTA == 0:
        tl.store(edges + i, score, mask=known)
    elif BUCKETS:
        tl.store(edges + i, score - double(DELTA), mask=i == 0)
        tl.store(edges + i + 1, score, mask=known)
    else:  # two ascending runs are merged
        low, high = score - double(DELTA), score + double(DELTA)
        tl.store(edges + i + _count_ends(ranked, DELTA, low, num, step, True), low, mask=known)
        tl.store(edges + i + _count_ends(ranked, -DELTA, high, num, step, False), high, mask=known)


@triton.jit
def _means(edges, counts, distances, c, known, DELTA: tl.constexpr):
    """Number and mean of the negatives of cells."""
    count = tl.load(counts + c, mask=known, other=0.0)
    mean = tl.load(edges + c, mask=known, other=0.0)
    if DELTA > 0:  # else all of a cell compare like its left edge, and rounding would show
        mean += tl.load(distances + c, mask=known, other=0.0) / tl.maximum(count, 1.0)
    return count, mean


@triton.jit
def _rank(
    ranked, order, qualities, edges, counts, distances, false_positives, errors, values, others,
    shares, num, cells, KIND: tl.constexpr, DELTA: tl.constexpr, FLOOR: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """FP, error and value of each positive; value and share of the second term."""
    i, columns = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    known = i < num
    score = tl.load(ranked + i, mask=known, other=0.0).to(tl.float64)
    zeros = tl.zeros([ROWS, COLUMNS], tl.float64)
    sums = zeros
    start = 0
    while start < cells:
        c = start + columns
        count, mean = _means(edges, counts, distances, c, c < cells, DELTA)
        sums += _ramp(mean[None, :] - score[:, None], DELTA) * count[None, :]
        start += COLUMNS
    fp = tl.sum(sums, axis=1)
    # Over the positives: number, weights (1 - quality, or error), and both of a part of them: the
    # worse ones, or those that are not below.
    above, weighted, part, weighted_part = zeros, zeros, zeros, zeros
    own = tl.zeros([ROWS], tl.float64)
    if KIND == "sort" or KIND == "localize":
        own = tl.load(qualities + tl.load(order + i, mask=known, other=0)).to(tl.float64)
    start = 0
    while start < num:
        k = start + columns
        other = tl.load(ranked + k, mask=k < num, other=0.0).to(tl.float64)
        ramp = _ramp(other[None, :] - score[:, None], DELTA)
        ramp = tl.where(k[None, :] < num, ramp, 0.0)
        above += ramp
        if KIND == "sort" or KIND == "localize":
            place = tl.load(order + k, mask=k < num, other=0)
            quality = tl.load(qualities + place, mask=k < num, other=0.0).to(tl.float64)
            if KIND == "sort":
                worse = tl.where(quality[None, :] < own[:, None], ramp, 0.0)
                weighted += ramp * (1 - quality)[None, :]
                part += worse
                weighted_part += worse * (1 - quality)[None, :]
            else:
                weighted += ramp * quality[None, :]
                part += tl.where(other[None, :] >= score[:, None], quality[None, :], 0.0)
        start += COLUMNS
    positives = tl.sum(above, axis=1)
    rank = positives + fp
    if (KIND == "interpolated" or KIND == "localize") and DELTA > 0:
        rank += 0.5  # a positive counts itself as 1, not as H(0)
    value = fp / rank
    error = value
    tl.store(false_positives + i, fp, mask=known)
    tl.store(values + i, value, mask=known)
    if KIND == "localize":
        half = 0.5 if DELTA > 0 else 1.0
        error = tl.where(
            fp > double(FLOOR), (fp + tl.sum(weighted, axis=1) - half * own) / rank, 0.0
        )
        tl.store(others + i, tl.sum(part, axis=1) / rank, mask=known)
        tl.store(shares + i, 1 / rank, mask=known)
    if KIND == "sort":
        lacking, lacking_worse = tl.sum(weighted, axis=1), tl.sum(weighted_part, axis=1)
        worse = tl.sum(part, axis=1)
        # The others by difference: they hold the positive itself and never vanish.
        change = lacking / positives - (lacking - lacking_worse) / (positives - worse)
        change = tl.where(worse > double(FLOOR), tl.maximum(change, 0.0), 0.0)
        tl.store(others + i, change, mask=known)
        tl.store(shares + i, tl.where(worse > double(FLOOR), change / worse, 0.0), mask=known)
    tl.store(errors + i, error, mask=known)


@triton.jit
def _level(
    ranked, false_positives, errors, edges, counts, distances, poison, level, slope, num, cells,
    DELTA: tl.constexpr, SLOPED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradient of a negative: `level + slope * distance`, by its cell."""
    c, columns = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    left = tl.load(edges + c, mask=c < cells, other=0.0)
    at = left if SLOPED else _means(edges, counts, distances, c, c < cells, DELTA)[1]
    levels, slopes = tl.zeros([ROWS, COLUMNS], tl.float64), tl.zeros([ROWS, COLUMNS], tl.float64)
    start = 0
    while start < num:
        i = start + columns
        score = tl.load(ranked + i, mask=i < num, other=0.0).to(tl.float64)
        fp = tl.load(false_positives + i, mask=i < num, other=0.0)
        error = tl.load(errors + i, mask=i < num, other=0.0)
        share = tl.where(fp > 0, error / fp, 0.0)
        levels += _ramp(at[:, None] - score[None, :], DELTA) * share[None, :]
        if SLOPED:
            rising = left[:, None] >= (score - double(DELTA))[None, :]
            rising &= left[:, None] < (score + double(DELTA))[None, :]
            slopes += tl.where(rising, share[None, :] * double(0.5 / DELTA), 0.0)
        start += COLUMNS
    total = tl.sum(levels, axis=1) / num + tl.load(poison)
    tl.store(level + c, total, mask=c < cells)
    if SLOPED:
        tl.store(slope + c, tl.sum(slopes, axis=1) / num, mask=c < cells)


@triton.jit
def _settle(
    ranked, order, qualities, errors, values, others, shares, poison, gradients, value, other_value,
    num,
    KIND: tl.constexpr, DELTA: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients (2, P) of the positives, or of their errors, by both terms; and the values."""
    k, columns = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    known = k < num
    score = tl.load(ranked + k, mask=known, other=0.0).to(tl.float64)
    received = tl.zeros([ROWS, COLUMNS], tl.float64)
    sums, other_sums = tl.zeros([COLUMNS], tl.float64), tl.zeros([COLUMNS], tl.float64)
    if KIND == "sort":
        own = tl.load(qualities + tl.load(order + k, mask=known, other=0)).to(tl.float64)
    start = 0
    while start < num:
        i = start + columns
        inside = i < num
        sums += tl.load(values + i, mask=inside, other=0.0)
        if KIND == "sort" or KIND == "localize":
            other_sums += tl.load(others + i, mask=inside, other=0.0)
            share = tl.load(shares + i, mask=inside, other=0.0)
            other = tl.load(ranked + i, mask=inside, other=0.0).to(tl.float64)
            difference = score[:, None] - other[None, :]
            if KIND == "sort":
                place = tl.load(order + i, mask=inside, other=0)
                quality = tl.load(qualities + place, mask=inside, other=0.0).to(tl.float64)
                better = quality[None, :] > own[:, None]
                received += tl.where(better, _ramp(difference, DELTA) * share[None, :], 0.0)
            else:
                received += tl.where(difference >= 0, share[None, :], 0.0)
        start += COLUMNS
    broken = tl.load(poison)
    error = tl.load(errors + k, mask=known, other=0.0)
    tl.store(gradients + k, broken - error / num, mask=known)
    first = tl.program_id(0) == 0
    store(value, tl.sum(sums, axis=0) / num + broken, first)
    if KIND == "sort" or KIND == "localize":
        other_gradient = tl.sum(received, axis=1)
        if KIND == "sort":
            other_gradient -= tl.load(others + k, mask=known, other=0.0)
        tl.store(gradients + num + k, other_gradient / num + broken, mask=known)
        store(other_value, tl.sum(other_sums, axis=0) / num + broken, first)


@triton.jit
def _overwrite(
    positives, order, gradients, upstream, other_upstream, gradient, error_gradient, num,
    KIND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of each positive, and of its localization error."""
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = k < num
    place = tl.load(order + k, mask=known, other=0)
    value = tl.load(gradients + k, mask=known, other=0.0) * tl.load(upstream).to(tl.float64)
    if KIND == "sort" or KIND == "localize":
        other = tl.load(gradients + num + k, mask=known, other=0.0)
        other *= tl.load(other_upstream).to(tl.float64)
        if KIND == "sort":
            value += other
        else:
            store(error_gradient + place, other, known)
    store(gradient + tl.load(positives + place, mask=known, other=0), value, known)


def compute(
    kind: str,
    logits: Tensor,
    labels: Tensor,
    positives: Tensor,
    qualities: Tensor | None,
    *,
    delta: float,
    bucketed: bool = False,
    floor: float = 0.0,
) -> dict[str, Tensor]:
    """Compute the terms of a ranking loss, attached to the graph.

    Args:
        kind: "precision" is the ranking term of RS, BRS and BAP, "interpolated" that of AP, "sort"
            the first with a sorting term, "localize" the components of aLRP.
        logits: (M,) or (R, K) logits of any precision.
        labels: (M,) 1 positive, 0 negative, -1 ignored; or (R,) class of each row, K background, -1
            ignored.
        positives: (P,) int64 positions of the positives in the flat logits, ascending; P >= 1.
        qualities: (P,) quality of the positives, or localization errors; None if not used.
        delta: half-width of the ramp, in logits, >= 0.
        bucketed: whether the negatives between two positives act as their mean.
        floor: mass of false positives ("localize"), or of worse positives ("sort"), up to which an
            error is 0, as published.

    Returns:
        Values () by name, in at least float32; the box component of aLRP in the type of the errors.
    """

    def new(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return logits.new_empty(shape, dtype=dtype)

    shape, num, sloped = logits.shape, len(positives), not bucketed and delta > 0
    cells = 2 * num if sloped else num + (delta > 0)
    edges, flat = new(cells), logits.detach().contiguous().view(-1)
    classes = logits.shape[1] if logits.ndim == 2 else 0
    if not labels.dtype.is_signed:  # -1 is what a kernel reads behind the end
        labels = labels.long()
    passes = LabeledLogits(flat, labels.contiguous(), classes, edges)
    positives = positives.contiguous()
    ranked, order = flat.index_select(0, positives).sort()
    weights = ranked if qualities is None else qualities.detach().contiguous()
    false_positives, errors, values, others, shares = new(5, num)
    (level, slope), gradients = new(2, cells), new(2, num)
    value = new(dtype=torch.promote_types(logits.dtype, torch.float32))
    other = torch.empty_like(value, dtype=weights.dtype if kind == "localize" else value.dtype)

    pairs: dict[str, Any] = {"DELTA": float(delta), "ROWS": _ROWS, "COLUMNS": _COLUMNS}
    by_positive = (triton.cdiv(num, _ROWS),)
    with current_device(flat):
        _cut[(triton.cdiv(num, _BLOCK),)](
            ranked, edges, num, first_step(num),
            DELTA=float(delta), BUCKETS=bucketed, BLOCK=_BLOCK,
        )  # fmt: skip
        counts, distances, poison = passes.count()
        _rank[by_positive](
            ranked, order, weights, edges, counts, distances,
            false_positives, errors, values, others, shares, num, cells,
            KIND=kind, FLOOR=floor, **pairs,
        )  # fmt: skip
        if kind == "interpolated":
            errors = values = errors.cummin(0).values
        _level[(triton.cdiv(cells, _ROWS),)](
            ranked, false_positives, errors, edges, counts, distances, poison,
            level, slope, num, cells, SLOPED=sloped, **pairs,
        )  # fmt: skip
        _settle[by_positive](
            ranked, order, weights, errors, values, others, shares, poison, gradients, value, other,
            num, KIND=kind, **pairs,
        )  # fmt: skip

    def differentiate(*upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradient = passes.write(level, slope if sloped else None, upstream[0])
        of_errors = torch.empty_like(weights) if kind == "localize" else None
        with current_device(flat):
            _overwrite[(triton.cdiv(num, _BLOCK),)](
                positives, order, gradients, upstream[0], upstream[-1], gradient,
                gradient if of_errors is None else of_errors, num, KIND=kind, BLOCK=_BLOCK,
            )  # fmt: skip
        return gradient.view(shape), of_errors

    terms = {"loss_rank": value} | ({_SECOND[kind]: other} if kind in _SECOND else {})
    attached = attach_function(differentiate, tuple(terms.values()), logits, qualities)
    return dict(zip(terms, attached, strict=True))
