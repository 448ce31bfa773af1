"""Whole ranking losses as Triton kernels: nine launches forward, two backward, no wait.

    sort        positives by score (torch)
    _cut        edges of the cells: breakpoints of the ramps, or the positives for bucketed losses
    _count      first pass over the logits: number and distances of the negatives in each cell
    _average    mean of each cell
    _rank       errors of each positive, from all pairs with positives and means
    _level      gradient in each cell, from all pairs with positives
    _settle     gradient of each positive, and the values
    _write      second pass over the logits, in the backward pass: the gradient
    _overwrite  that of the positives

A ramp is linear within a cell between breakpoints: there, negatives act *exactly* as their mean,
times their number. So exact and bucketed losses differ in the edges alone.

Logits are compared with edges as they are, edges that are no numbers of their type are rounded up;
differences and all sums over positives and cells are float64: an outlier costs no digits. Sums over
negatives are integers and all others in fixed order: the same bits twice. No gradient is kept: the
backward pass reads the logits again instead.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from brloss_d2.ops.autograd import attach_function
from brloss_d2.ops.triton.launch import current_device

# Names of the second terms.
_SECOND = {"sort": "loss_sort", "localize": "loss_box"}
_BLOCK = 1024  # logits of a program
_COUNTERS = 1 << 17  # of all copies of the cells, 1 MiB
_MAX_COPIES = 256
_CELLS, _WIDE = 32, 32  # cells of a program, and copies of them at a time
# Pairs of a tile.
_ROWS, _COLUMNS = 16, 64


@triton.jit
def _ramp(x, DELTA: tl.constexpr):
    """H(x)."""
    if DELTA == 0:
        return tl.where(x >= 0, 1.0, 0.0).to(tl.float64)
    else:
        return tl.minimum(tl.maximum(x * (0.5 / DELTA) + 0.5, 0.0), 1.0)


@triton.jit
def _round_up(x, real: tl.constexpr):
    """Smallest number of a type, float32 or float64, that is at least the float64 `x`."""
    nearest = x.to(real)
    if real == tl.float32:
        bits = nearest.to(tl.int32, bitcast=True)
        above = tl.where(nearest == 0, 1, tl.where(nearest > 0, bits + 1, bits - 1))
        above = above.to(tl.float32, bitcast=True)
        nearest = tl.where(nearest.to(tl.float64) < x, above, nearest)
    return nearest


@triton.jit
def _store(pointer, x, mask):
    """Store float64 numbers in the type of `pointer`; to half precision no conversion is direct."""
    if pointer.dtype.element_ty != tl.float64:
        x = x.to(tl.float32)
    tl.store(pointer, x.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _count_ends(ranked, shift: tl.constexpr, end, num, step, STRICT: tl.constexpr):
    """Number of positives s with `s + shift`, rounded up, up to `end` (STRICT: below it)."""
    count = tl.zeros_like(end).to(tl.int32)
    while step > 0:
        probe = count + step
        score = tl.load(ranked + probe - 1, mask=probe <= num, other=0.0).to(tl.float64)
        other = _round_up(score + shift, end.dtype)
        passed = other < end if STRICT else other <= end
        count = tl.where((probe <= num) & passed, probe, count)
        step //= 2
    return count


@triton.jit
def _cut(ranked, edges, num, step, DELTA: tl.constexpr, BUCKETS: tl.constexpr, BLOCK: tl.constexpr):
    """Write the edges of the cells in ascending order; below the first one, H is 0."""
    real: tl.constexpr = edges.dtype.element_ty
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = i < num
    score = tl.load(ranked + i, mask=known, other=0.0).to(tl.float64)
    if DELTA == 0:
        tl.store(edges + i, score.to(real), mask=known)
    elif BUCKETS:
        tl.store(edges + i, _round_up(score - DELTA, real), mask=i == 0)
        tl.store(edges + i + 1, score.to(real), mask=known)
    else:  # two ascending runs are merged
        low, high = _round_up(score - DELTA, real), _round_up(score + DELTA, real)
        tl.store(edges + i + _count_ends(ranked, DELTA, low, num, step, True), low, mask=known)
        tl.store(edges + i + _count_ends(ranked, -DELTA, high, num, step, False), high, mask=known)


@triton.jit
def _read(logits, labels, edges, at, inside, cells, step, CLASSES: tl.constexpr):
    """Logits and their cells; -1 for those below all edges and those that are no negatives."""
    logit = tl.load(logits + at, mask=inside, other=0.0).to(edges.dtype.element_ty)
    if CLASSES > 0:  # labels of rows
        label = tl.load(labels + at // CLASSES, mask=inside, other=-1)
        negative = (label >= 0) & (label != at % CLASSES)
    else:
        negative = tl.load(labels + at, mask=inside, other=1) == 0
    cell = tl.full(at.shape, -1, tl.int32)
    while step > 0:
        probe = cell + step
        edge = tl.load(edges + probe, mask=negative & (probe < cells), other=float("inf"))
        cell = tl.where(edge <= logit, probe, cell)
        step //= 2
    return logit, tl.where(negative, cell, -1)


@triton.jit
def _units(left, right, SIZE_BITS: tl.constexpr):
    """Power of 2 that makes integers of distances within a cell, of which `2^SIZE_BITS` add up."""
    gap = right.to(tl.float64) - left.to(tl.float64)
    exponent = ((gap.to(tl.int64, bitcast=True) >> 52) & 2047) - 1022  # gap < 2^exponent
    power = tl.minimum(tl.maximum(62 - SIZE_BITS - exponent, -1000), 1000)
    return ((power + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def _count(
    logits, labels, edges, totals, tails, size, cells, step, copies,
    CLASSES: tl.constexpr, SIZE_BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add up numbers and distances to the left edge; the last cell, endless, block by block."""
    block = tl.program_id(0)
    at = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    logit, cell = _read(logits, labels, edges, at, inside, cells, step, CLASSES)
    left = tl.load(edges + cell, mask=cell >= 0, other=0.0)
    distance = logit.to(tl.float64) - left.to(tl.float64)
    bounded = (cell >= 0) & (cell < cells - 1)
    units = _units(left, tl.load(edges + cell + 1, mask=bounded, other=1.0), SIZE_BITS)
    copy = totals + (block % copies).to(tl.int64) * 2 * cells
    ones = tl.full([BLOCK], 1, dtype=tl.int64)
    tl.atomic_add(copy + cell, ones, mask=cell >= 0, sem="relaxed")
    rounded = tl.floor(tl.where(bounded, distance * units, 0.0) + 0.5).to(tl.int64)
    tl.atomic_add(copy + cells + cell, rounded, mask=bounded, sem="relaxed")
    # NaN if a logit is NaN or infinite, for all that follows.
    broken = (logit - logit).to(tl.float64)
    tl.store(tails + block, tl.sum(tl.where(cell == cells - 1, distance, 0.0) + broken, axis=0))


@triton.jit
def _average(
    edges, totals, tails, counts, means, poison, cells, copies, blocks,
    SIZE_BITS: tl.constexpr, DELTA: tl.constexpr, CELLS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Number and mean of the negatives of each cell; poison, NaN if a logit is broken, else 0."""
    c = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    known, wide = c < cells, tl.arange(0, WIDE)
    count, units = tl.zeros([WIDE, CELLS], tl.int64), tl.zeros([WIDE, CELLS], tl.int64)
    start = 0
    while start < copies:
        row = (start + wide)[:, None]
        at = totals + row.to(tl.int64) * 2 * cells + c[None, :]
        inside = (row < copies) & known[None, :]
        count += tl.load(at, mask=inside, other=0)
        units += tl.load(at + cells, mask=inside, other=0)
        start += WIDE
    number = tl.sum(count, axis=0).to(tl.float64)
    tail = tl.zeros([WIDE], tl.float64)
    start = 0
    while start < blocks:
        tail += tl.load(tails + start + wide, mask=start + wide < blocks, other=0.0)
        start += WIDE
    last = tl.sum(tail, axis=0)
    left = tl.load(edges + c, mask=known, other=0.0)
    right = tl.load(edges + c + 1, mask=c < cells - 1, other=1.0)
    distances = tl.sum(units, axis=0).to(tl.float64) / _units(left, right, SIZE_BITS)
    mean = left.to(tl.float64)
    if DELTA > 0:  # else all of a cell compare like its left edge, and rounding could be seen
        mean += tl.where(c < cells - 1, distances, last) / tl.maximum(number, 1.0)
    tl.store(counts + c, number, mask=known)
    tl.store(means + c, mean, mask=known)
    tl.store(poison + c, last - last, mask=c == 0)


@triton.jit
def _rank(
    ranked, order, qualities, counts, means, false_positives, errors, values, others, shares,
    num, cells, KIND: tl.constexpr, DELTA: tl.constexpr, FLOOR: tl.constexpr,
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
        count = tl.load(counts + c, mask=c < cells, other=0.0)
        mean = tl.load(means + c, mask=c < cells, other=0.0)
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
        error = tl.where(fp > FLOOR, (fp + tl.sum(weighted, axis=1) - half * own) / rank, 0.0)
        tl.store(others + i, tl.sum(part, axis=1) / rank, mask=known)
        tl.store(shares + i, 1 / rank, mask=known)
    if KIND == "sort":
        lacking, lacking_worse = tl.sum(weighted, axis=1), tl.sum(weighted_part, axis=1)
        worse = tl.sum(part, axis=1)
        # The others by difference: they hold the positive itself and never vanish.
        change = lacking / positives - (lacking - lacking_worse) / (positives - worse)
        change = tl.where(worse > FLOOR, tl.maximum(change, 0.0), 0.0)
        tl.store(others + i, change, mask=known)
        tl.store(shares + i, tl.where(worse > FLOOR, change / worse, 0.0), mask=known)
    tl.store(errors + i, error, mask=known)


@triton.jit
def _level(
    ranked, false_positives, errors, edges, means, poison, level, slope, num, cells,
    DELTA: tl.constexpr, SLOPED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradient of a negative: `level + slope * distance`, by its cell."""
    real: tl.constexpr = edges.dtype.element_ty
    c, columns = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    left = tl.load(edges + c, mask=c < cells, other=0.0)
    at = left.to(tl.float64) if SLOPED else tl.load(means + c, mask=c < cells, other=0.0)
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
            low, high = _round_up(score - DELTA, real), _round_up(score + DELTA, real)
            rising = (left[:, None] >= low[None, :]) & (left[:, None] < high[None, :])
            slopes += tl.where(rising, share[None, :] * (0.5 / DELTA), 0.0)
        start += COLUMNS
    total = tl.sum(levels, axis=1) / num + tl.load(poison)
    _store(level + c, total, c < cells)
    if SLOPED:
        _store(slope + c, tl.sum(slopes, axis=1) / num, c < cells)


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
    _store(value, tl.sum(sums, axis=0) / num + broken, first)
    if KIND == "sort" or KIND == "localize":
        other_gradient = tl.sum(received, axis=1)
        if KIND == "sort":
            other_gradient -= tl.load(others + k, mask=known, other=0.0)
        tl.store(gradients + num + k, other_gradient / num + broken, mask=known)
        _store(other_value, tl.sum(other_sums, axis=0) / num + broken, first)


@triton.jit
def _write(
    logits, labels, edges, level, slope, upstream, gradient, size, cells, step,
    CLASSES: tl.constexpr, SLOPED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of each negative, 0 for all else."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    logit, cell = _read(logits, labels, edges, at, inside, cells, step, CLASSES)
    value = tl.load(level + cell, mask=cell >= 0, other=0.0)
    if SLOPED:
        left = tl.load(edges + cell, mask=cell >= 0, other=0.0)
        distance = tl.where(cell >= 0, logit - left, 0.0)
        value += tl.load(slope + cell, mask=cell >= 0, other=0.0) * distance
    value *= tl.load(upstream).to(value.dtype)
    tl.store(gradient + at, value.to(gradient.dtype.element_ty), mask=inside)


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
            _store(error_gradient + place, other, known)
    _store(gradient + tl.load(positives + place, mask=known, other=0), value, known)


def _first_step(size: int) -> int:
    """First step of a binary search for one of `size` entries or none: the highest bit."""
    return 1 << (size.bit_length() - 1)


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
    flat, labels = logits.detach().contiguous().view(-1), labels.contiguous()
    real = torch.promote_types(logits.dtype, torch.float32)
    classes = logits.shape[1] if logits.ndim == 2 else 0
    size, num, blocks = len(flat), len(positives), triton.cdiv(len(flat), _BLOCK)
    sloped = not bucketed and delta > 0
    cells = 2 * num if sloped else num + (delta > 0)
    copies = max(1, min(_COUNTERS // (2 * cells), _MAX_COPIES, blocks))

    def new(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return flat.new_empty(shape, dtype=dtype)

    ranked, order = flat.index_select(0, positives).sort()
    weights = ranked if qualities is None else qualities.detach().contiguous()
    edges, level, slope = new(3, cells, dtype=real)
    totals = flat.new_zeros((copies, 2, cells), dtype=torch.int64)
    tails, (counts, means), poison = new(blocks), new(2, cells), new()
    false_positives, errors, values, others, shares = new(5, num)
    gradients = new(2, num)
    value, other = new(dtype=real), new(dtype=weights.dtype if kind == "localize" else real)

    read = {"CLASSES": classes, "BLOCK": _BLOCK}
    pairs: dict[str, Any] = {"DELTA": float(delta), "ROWS": _ROWS, "COLUMNS": _COLUMNS}
    bits = size.bit_length()
    step = _first_step(cells)
    by_positive = (triton.cdiv(num, _ROWS),)
    with current_device(flat):
        _cut[(triton.cdiv(num, _BLOCK),)](
            ranked, edges, num, _first_step(num),
            DELTA=float(delta), BUCKETS=bucketed, BLOCK=_BLOCK,
        )  # fmt: skip
        _count[(blocks,)](
            flat, labels, edges, totals, tails, size, cells, step, copies, SIZE_BITS=bits, **read
        )
        _average[(triton.cdiv(cells, _CELLS),)](
            edges, totals, tails, counts, means, poison, cells, copies, blocks,
            SIZE_BITS=bits, DELTA=float(delta), CELLS=_CELLS, WIDE=_WIDE,
        )  # fmt: skip
        _rank[by_positive](
            ranked, order, weights, counts, means, false_positives, errors, values, others, shares,
            num, cells, KIND=kind, FLOOR=floor, **pairs,
        )  # fmt: skip
        if kind == "interpolated":
            errors = values = errors.cummin(0).values
        _level[(triton.cdiv(cells, _ROWS),)](
            ranked, false_positives, errors, edges, means, poison, level, slope, num, cells,
            SLOPED=sloped, **pairs,
        )  # fmt: skip
        _settle[by_positive](
            ranked, order, weights, errors, values, others, shares, poison, gradients, value, other,
            num, KIND=kind, **pairs,
        )  # fmt: skip

    def differentiate(
        inputs: tuple[Tensor, ...], upstream: tuple[Tensor, ...]
    ) -> tuple[Tensor | None, ...]:
        gradient = torch.empty_like(inputs[0], memory_format=torch.contiguous_format)
        of_errors = torch.empty_like(weights) if kind == "localize" else None
        with current_device(flat):
            _write[(blocks,)](
                inputs[0].contiguous(), labels, edges, level, slope, upstream[0], gradient,
                size, cells, step, SLOPED=sloped, **read,
            )  # fmt: skip
            _overwrite[(triton.cdiv(num, _BLOCK),)](
                positives, order, gradients, upstream[0], upstream[-1], gradient,
                gradient if of_errors is None else of_errors, num, KIND=kind, BLOCK=_BLOCK,
            )  # fmt: skip
        return gradient, of_errors

    terms = {"loss_rank": value} | ({_SECOND[kind]: other} if kind in _SECOND else {})
    attached = attach_function(differentiate, tuple(terms.values()), logits, qualities)
    return dict(zip(terms, attached, strict=True))
