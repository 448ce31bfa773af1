"""Ramp sums: the two primitives behind every ranking loss, in O((V + T) log V).

The ramp `H(x) = clip(x / (2 delta) + 1/2, 0, 1)` is a difference of two ReLUs. A sum of ramps
over sorted values is therefore a difference of prefix sums at two positions:

    sum_j w_j H(v_j - t) = W(v >= t + delta)
                         + [WV(window) - t W(window)] / (2 delta) + W(window) / 2

with the window `t - delta <= v < t + delta` and `W`, `WV` the sums of `w` and `w v` over
a range. For `delta = 0` the window is empty and ties count as above, H(0) = 1.

A *prefix* ramp sum is that of threshold i over the first `prefix[i]` values only. With the values
in order of quality it is the dominance ramp sum, restricted to the positives that are worse (or
better) than a given one: the sorting errors of Rank & Sort Loss and their gradients.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.ops import dense
from brloss_d2.ops.pairs import device_kind
from brloss_d2.ops.search import count_below

# Pairs evaluated at once. On CPUs a tile of float64 stays in the cache; on GPUs it takes 64 MiB.
_TILE_PAIRS = {"cpu": 1 << 15, "cuda": 1 << 23}
# Positions in a leaf of the wavelet tree, as a power of 2: fewer levels against more pairs.
_LEAF_BITS = 4


def prefix_sums(x: Tensor) -> Tensor:
    """Exclusive prefix sums along the last axis, one longer than the input: `out[..., 0] = 0`.

    The same bits for the same input. On a GPU torch scans a single row in blocks that are added as
    they finish, so that last digits vary, but each of several rows in a fixed order: a single one
    gets a second.
    """
    if x.device.type == "cpu" or x.numel() > x.shape[-1]:
        return F.pad(x, (1, 0)).cumsum(-1)
    sums = F.pad(x.reshape(1, x.numel()), (1, 0, 0, 1)).cumsum(-1)[0]
    return sums.view(*x.shape[:-1], len(sums))


def window_sum(
    above: Tensor, mass: Tensor, moment: Tensor, thresholds: Tensor, delta: float
) -> Tensor:
    """Combine three range sums into the ramp sum, as in the module docstring.

    Args:
        above: (..., T) W(v >= t + delta).
        mass: (..., T) W(window).
        moment: (..., T) WV(window).
        thresholds: (T,) t.
        delta: half-width of the ramp, in logits, >= 0.
    """
    if delta == 0:
        return above
    return above + (moment - thresholds * mass) / (2 * delta) + mass / 2


def ramp_sum(thresholds: Tensor, values: Tensor, weights: Tensor, delta: float) -> Tensor:
    """Compute `sum_j weights[..., j] * H(values[j] - thresholds[i])` for every threshold.

    Time O((V + T) log V), memory O(V + T).

    Args:
        thresholds: (T,) float64 thresholds.
        values: (V,) float64 values in any order. Center them near 0: the window term is a
            difference of products, and its rounding error grows with their size.
        weights: (..., V) float64 weights of the values.
        delta: half-width of the ramp, in logits, >= 0.

    Returns:
        (..., T) float64 sums.
    """
    values, order = values.sort()
    weights = weights[..., order]
    low = count_below(thresholds - delta, values)
    high = count_below(thresholds + delta, values)
    mass, moment = prefix_sums(weights), prefix_sums(weights * values)
    return window_sum(
        mass[..., -1:] - mass[..., high],
        mass[..., high] - mass[..., low],
        moment[..., high] - moment[..., low],
        thresholds,
        delta,
    )


def prefix_ramp_sum_wavelet(
    thresholds: Tensor, prefix: Tensor, values: Tensor, weights: Tensor, delta: float
) -> Tensor:
    """Compute `sum_{j < prefix[i]} weights[..., j] * H(values[j] - thresholds[i])`.

    A wavelet tree over the positions takes O((T + V) log V) time and O(T + V) memory. Its leaves
    are blocks of a few positions; a prefix that ends within one compares their values one by one.

    Args:
        thresholds: (T,) float64 thresholds.
        prefix: (T,) int64 number of values that each threshold is compared with, in [0, V].
        values: (V,) float64 values, in the order in which `prefix` counts them.
        weights: (..., V) float64 weights of the values.
        delta: half-width of the ramp, in logits, >= 0.

    Returns:
        (..., T) float64 sums.
    """
    ranked, order = values.sort()
    ends = torch.stack([count_below(thresholds + d, ranked) for d in (-delta, delta)])
    rows = weights.reshape(math.prod(weights.shape[:-1]), len(values))
    full = prefix >> _LEAF_BITS << _LEAF_BITS
    columns = torch.cat([rows, rows * values]).t().contiguous()
    window, below = _dominated_sums(order, columns, ends, full)
    mass, moment = window.t().split(len(rows))
    above = prefix_sums(rows).index_select(1, full) - below.t()[: len(rows)]
    sums = window_sum(above, mass, moment, thresholds, delta)
    sums += _sums_in_leaves(thresholds, prefix, values, rows, delta)
    return sums.reshape(*weights.shape[:-1], len(prefix))


def _sums_in_leaves(
    thresholds: Tensor, prefix: Tensor, values: Tensor, weights: Tensor, delta: float
) -> Tensor:
    """Sum over the last leaf of each prefix, if the prefix ends within one: (K, T)."""
    leaf = 1 << _LEAF_BITS
    number = len(values) // leaf + 1
    # A row holds the values of a leaf and their K weights.
    table = torch.cat([values[None], weights])
    table = F.pad(table, (0, number * leaf - len(values))).unflatten(1, (number, leaf))
    table = table.transpose(0, 1).flatten(1).contiguous()
    place = torch.arange(leaf, device=values.device)
    size = max(1, _TILE_PAIRS[device_kind(values)] // leaf)
    sums = []
    for t, n in zip(thresholds.split(size), prefix.split(size), strict=True):
        row = table.index_select(0, n >> _LEAF_BITS).unflatten(1, (-1, leaf))
        h = dense.ramp(row[:, 0] - t[:, None], delta)
        h *= place < (n & (leaf - 1))[:, None]
        sums.append((row[:, 1:] * h[:, None]).sum(-1).t())
    return torch.cat(sums, -1)


def _dominated_sums(
    positions: Tensor, columns: Tensor, ends: Tensor, prefix: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum `columns` over the entries with a position below `prefix` and a rank up to a window.

    A wavelet tree, level by level (Grossi, Gupta, Vitter: High-order entropy-compressed text
    indexes, 2003). Nodes are aligned blocks of positions with their entries in rank order. A prefix
    whose bit is set takes the left half of its node, up to the ends of its window, and goes on in
    the right half; one whose bit is clear goes on in the left half and takes nothing.

    Made for CPUs: rows of few columns are gathered at once, masks become indices that select equal
    entries, and each level overwrites the buffers of the level before, because new memory pages
    cost more than the sums.

    Args:
        positions: (V,) int64 positions of the entries in rank order.
        columns: (V, C) float64 values to sum, contiguous, in the order of the positions.
        ends: (2, T) int lower and upper ends of the windows, as ranks in [0, V].
        prefix: (T,) int64 positions in [0, V] at which leaves begin.

    Returns:
        `(window, below)`, (T, C) float64 each: sums within the window and below its upper end.
    """
    size = len(positions)
    positions, prefix, ends = positions.int(), prefix.int(), ends.int()
    entries = torch.arange(size, device=positions.device, dtype=torch.int32)
    right_before = positions.new_zeros(size + 1)
    rows, before = torch.empty_like(columns), columns.new_zeros(size + 1, columns.shape[1])
    window, below = columns.new_zeros(2, len(prefix), columns.shape[1])
    sums = torch.empty_like(window)
    # No `size.bit_length()`: torch 2.4 cannot trace that of a size that it does not know.
    for bit in reversed([bit for bit in range(_LEAF_BITS, 31) if size >= 1 << bit]):
        half, right, taken = 1 << bit, (positions >> bit) & 1, (prefix >> bit) & 1
        torch.cumsum(right, 0, dtype=torch.int32, out=right_before[1:])
        # Half of the entries before a node go right, for the nodes before it are full.
        node = entries >> (bit + 1) << bit
        to_the_left = entries - right_before[:-1]
        order = node + to_the_left + right * (right_before[:-1] - to_the_left + half)
        positions = torch.empty_like(positions).scatter_(0, order.long(), positions)
        # Before position p of the new order, whose halves are the nodes of the next level.
        torch.index_select(columns, 0, positions, out=rows)
        if rows.device.type == "cpu":
            torch.cumsum(rows, 0, out=before[1:])
        else:
            before.copy_(prefix_sums(rows.t()).t())
        node = prefix >> (bit + 1) << bit
        to_the_right = right_before.index_select(0, ends.view(-1)).view(2, -1)
        to_the_left = ends - to_the_right
        start = 2 * node
        low, high = start + taken * (to_the_left - node)
        torch.index_select(before, 0, high, out=sums)
        window += sums
        below += sums
        window -= torch.index_select(before, 0, low, out=sums)
        below -= torch.index_select(before, 0, start, out=sums)
        ends = node + to_the_left + taken * (to_the_right - to_the_left + half)
    return window, below
