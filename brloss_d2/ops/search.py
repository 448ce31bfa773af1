"""Binary search of many values among sorted edges, fast on CPUs.

A plain binary search mispredicts a branch at every step. Here a table of equal bins leads to the
few edges in the bin of a value, and the remaining steps run over all values at once, one gather
per step: none or a few if edges are spread evenly, as many as a binary search in the worst case.
"""

import math

import torch
from torch import Tensor

# Bins per edge, smallest and largest number of bins; with few edges a plain search is as fast.
_BINS_PER_EDGE = 4
_MIN_BINS, _MAX_BINS = 1 << 12, 1 << 20
_FEW_EDGES = 16
# Values that are searched for at a time, which fit into a cache with their temporary copies.
_CHUNK = 1 << 18


def count_reached(values: Tensor, edges: Tensor) -> Tensor:
    """Count the `edges` that each value reaches, `edges <= value`: (M,) int32 or int64.

    Args:
        values: (M,) numbers without NaN.
        edges: (E,) numbers of the same dtype, ascending.
    """
    plain = values.device.type != "cpu" or len(edges) < _FEW_EDGES
    width = 0.0 if plain else float(edges[-1] - edges[0])
    bins = min(max(_BINS_PER_EDGE * len(edges), _MIN_BINS), _MAX_BINS)
    if not (0 < width < math.inf and bins / width < torch.finfo(edges.dtype).max):
        return torch.bucketize(values, edges, right=True, out_int32=True)

    def bin_of(x: Tensor) -> Tensor:
        # Rounding is monotone: an edge in a lower bin is below the value, whatever the digits.
        return (x - edges[0]).mul_(bins / width).clamp_(0, bins - 1).int()

    edges_in = torch.bincount(bin_of(edges), minlength=bins)
    before = (edges_in.cumsum(0) - edges_in).int()
    # Add the edges of the value's own bin that it reaches, by halving steps.
    most = int(edges_in.max())
    steps = [1 << bit for bit in reversed(range(31)) if most >= 1 << bit]
    padded = torch.cat([edges, edges.new_full((2 * steps[0],), torch.nan)])  # NaN: never reached
    reached = before.new_empty(len(values))
    for part, own in zip(reached.split(_CHUNK), values.split(_CHUNK), strict=True):
        torch.index_select(before, 0, bin_of(own), out=part)
        for step in steps:
            part.add_(padded[step - 1 :].index_select(0, part) <= own, alpha=step)
    return reached


def count_below(values: Tensor, edges: Tensor) -> Tensor:
    """Count the `edges` below each value, `edges < value`; otherwise as `count_reached`."""
    if values.device.type != "cpu":
        return torch.searchsorted(edges, values, out_int32=True)
    return len(edges) - count_reached(-values, -edges.flip(0))
