"""Prefix ramp sums: the ramp sum of threshold i over the first `prefix[i]` values only.

With the values in order of quality this is the *dominance ramp sum*, restricted to the positives
that are worse (or better) than a given one: the sorting errors of Rank & Sort Loss and their
gradients. Two exact algorithms share one signature; `dispatch` chooses between them.
"""

import torch
from torch import Tensor

from brloss_d2.ops.ramp import prefix_sums, window_sum
from brloss_d2.ops.reference import prefix_ramp_sum as dense_prefix_ramp_sum

# Pairs evaluated at once by the tiled form: 2^21 float64 are 16 MiB, a few of them live.
_TILE_PAIRS = 1 << 21


def tiled(
    thresholds: Tensor, prefix: Tensor, values: Tensor, weights: Tensor, delta: float
) -> Tensor:
    """Pairwise in tiles: O(T V) time, O(T + V) memory, few operations. See `wavelet`."""
    rows = max(1, _TILE_PAIRS // max(1, len(values)))
    tiles = zip(thresholds.split(rows), prefix.split(rows), strict=True)
    return torch.cat([dense_prefix_ramp_sum(t, n, values, weights, delta) for t, n in tiles], -1)


def wavelet(
    thresholds: Tensor, prefix: Tensor, values: Tensor, weights: Tensor, delta: float
) -> Tensor:
    """By a wavelet matrix over the positions: O((T + V) log V) time, O(T + V) memory.

    Args:
        thresholds: (T,) float64.
        prefix: (T,) int64 in 0..V.
        values: (V,) float64, in the order that `prefix` counts in.
        weights: (..., V) float64.
        delta: half-width of the ramp, in logits, >= 0.

    Returns:
        (..., T) float64: `sum_{j < prefix[i]} weights[..., j] * H(values[j] - thresholds[i])`.
    """
    rank_to_position = values.argsort()
    ranked = values[rank_to_position]
    low = torch.searchsorted(ranked, thresholds - delta)
    high = torch.searchsorted(ranked, thresholds + delta)
    columns = torch.stack([weights, weights * values])[..., rank_to_position]
    below_low, below_high = _dominated_sums(rank_to_position, columns, (low, high), prefix)
    window = below_high - below_low
    total = prefix_sums(weights)[..., prefix]
    return window_sum(total - below_high[0], window[0], window[1], thresholds, delta)


def _dominated_sums(
    positions: Tensor, columns: Tensor, ranks: tuple[Tensor, Tensor], prefix: Tensor
) -> list[Tensor]:
    """Sums of `columns` over entries of rank below `ranks[q]` and position below `prefix`.

    Entries come in rank order. From the highest bit of the positions down, each level keeps the
    entries stably partitioned by that bit. A prefix with the bit set takes all entries whose bit is
    clear and goes on among the others; one with the bit clear goes on among the clear ones. The
    entries still in question are a contiguous range throughout, and two look-ups per level carry
    its ends over (Claude, Navarro, Ordonez: The wavelet matrix, 2015).
    """
    start = torch.zeros_like(prefix)
    ends = list(ranks)
    sums = [columns.new_zeros(*columns.shape[:-1], len(prefix)) for _ in ends]
    for bit in reversed(range(len(positions).bit_length())):
        clear = (positions >> bit) & 1 == 0
        clear_before = prefix_sums(clear.long())
        clear_columns = prefix_sums(columns * clear)
        taken = (prefix >> bit) & 1 == 1
        base = clear_columns[..., start]
        sums = [s + (clear_columns[..., e] - base) * taken for s, e in zip(sums, ends, strict=True)]
        clears = clear_before[-1]
        start, *ends = (
            torch.where(taken, clears + i - clear_before[i], clear_before[i])
            for i in (start, *ends)
        )
        entry = torch.arange(len(positions), device=positions.device)
        order = torch.where(clear, clear_before[:-1], clears + entry - clear_before[:-1])
        positions = torch.empty_like(positions).scatter_(0, order, positions)
        columns = torch.empty_like(columns).index_copy_(-1, order, columns)
    return sums
