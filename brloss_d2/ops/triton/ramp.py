"""Prefix ramp sums of all pairs as one Triton kernel: O(T V) time, no T x V matrix.

Pairs are compared in float64: the values are of size P, and differences in float32 would cost
float64 logits their digits. Each program sums a chunk of the values for a block of thresholds in
fixed order, and torch adds up the chunks: deterministic, and loops have constant bounds.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from brloss_d2.ops.triton.cells import double
from brloss_d2.ops.triton.launch import current_device

_THRESHOLDS = 64
_VALUES = 32
_TILES = 8  # of _VALUES values each, in a chunk


@triton.jit
def _sum_pairs(
    thresholds,
    prefix,
    values,
    weights,
    partial,
    num_thresholds,
    num_values,
    rows,
    DELTA: tl.constexpr,
    THRESHOLDS: tl.constexpr,
    VALUES: tl.constexpr,
    TILES: tl.constexpr,
):
    """`partial[chunk, row, i]`: what one chunk of the values adds to threshold i."""
    chunk, row = tl.program_id(1), tl.program_id(2)
    i = tl.program_id(0) * THRESHOLDS + tl.arange(0, THRESHOLDS)
    known = i < num_thresholds
    threshold = tl.load(thresholds + i, mask=known, other=0.0)
    end = tl.load(prefix + i, mask=known, other=0)
    weights += row.to(tl.int64) * num_values
    total = tl.zeros([THRESHOLDS, VALUES], dtype=tl.float64)
    for tile in range(TILES):
        j = (chunk * TILES + tile) * VALUES + tl.arange(0, VALUES)
        value = tl.load(values + j, mask=j < num_values, other=0.0)
        weight = tl.load(weights + j, mask=j < num_values, other=0.0)
        difference = value[None, :] - threshold[:, None]
        if DELTA == 0:
            ramp = tl.where(difference >= 0, 1.0, 0.0)
        else:
            ramp = tl.minimum(tl.maximum(difference * double(0.5 / DELTA) + 0.5, 0.0), 1.0)
        total += tl.where(j[None, :] < end[:, None], ramp, 0.0) * weight[None, :]
    at = (chunk.to(tl.int64) * rows + row) * num_thresholds + i
    tl.store(partial + at, tl.sum(total, axis=1), mask=known)


def prefix_ramp_sum(
    thresholds: Tensor, prefix: Tensor, values: Tensor, weights: Tensor, delta: float
) -> Tensor:
    """All pairs in float64; arguments as in `ramp.prefix_ramp_sum_wavelet`."""
    shape = (*weights.shape[:-1], len(thresholds))
    if not len(values) or not len(thresholds):
        return weights.new_zeros(shape)
    rows = weights.reshape(-1, len(values)).contiguous()
    tiles = min(_TILES, triton.next_power_of_2(triton.cdiv(len(values), _VALUES)))
    chunks = triton.cdiv(len(values), _VALUES * tiles)
    partial = rows.new_empty((chunks, len(rows), len(thresholds)))
    with current_device(values):
        _sum_pairs[(triton.cdiv(len(thresholds), _THRESHOLDS), chunks, len(rows))](
            thresholds.contiguous(), prefix.contiguous(), values.contiguous(), rows, partial,
            len(thresholds), len(values), len(rows), DELTA=float(delta),
            THRESHOLDS=_THRESHOLDS, VALUES=_VALUES, TILES=tiles,
        )  # fmt: skip
    return partial.sum(0).reshape(shape)


def ramp_sum(thresholds: Tensor, values: Tensor, weights: Tensor, delta: float) -> Tensor:
    """The same over all values; arguments as in `ramp.ramp_sum`."""
    everything = torch.full_like(thresholds, len(values), dtype=torch.int64)
    return prefix_ramp_sum(thresholds, everything, values, weights, delta)
