"""Where sorted edges divide scores: a binary search that is fast on CPUs.

Binary searches mispredict a branch at every step. Here a table over equal bins leads to the few
edges in the bin of a score, and the rest of the search runs over all scores at once, one gather a
step: none or a few where edges are spread evenly, as many as a binary search in the worst case.
"""

import math

import torch
from torch import Tensor

# Bins for each edge, at least and at most; below so few edges a plain search is as fast.
_BINS_PER_EDGE = 4
_MIN_BINS, _MAX_BINS = 1 << 12, 1 << 20
_FEW_EDGES = 16


def count_reached(scores: Tensor, edges: Tensor) -> Tensor:
    """How many of the `edges` each score reaches, `edges <= score`: (M,) int32 or int64.

    Args:
        scores: (M,) without NaN, on CPUs for the fast search.
        edges: (E,) ascending, of the same dtype.
    """
    if scores.device.type != "cpu" or len(edges) < _FEW_EDGES:
        return torch.bucketize(scores, edges, right=True, out_int32=True)
    width = float(edges[-1] - edges[0])
    bins = min(max(_BINS_PER_EDGE * len(edges), _MIN_BINS), _MAX_BINS)
    if not (0 < width < math.inf and bins / width < torch.finfo(edges.dtype).max):
        return torch.bucketize(scores, edges, right=True, out_int32=True)

    def bin_of(x: Tensor) -> Tensor:
        # Rounding is monotone: an edge in a lower bin is below the score, whatever the digits.
        return ((x - edges[0]) * (bins / width)).clamp_(0, bins - 1).int()

    edges_in = torch.bincount(bin_of(edges), minlength=bins)
    reached = (edges_in.cumsum(0) - edges_in).int().index_select(0, bin_of(scores))
    return _search_on(scores, edges, reached, int(edges_in.max()))


def count_below(scores: Tensor, edges: Tensor) -> Tensor:
    """How many of the `edges` are below each score, `edges < score`; else as `count_reached`."""
    if scores.device.type != "cpu":
        return torch.searchsorted(edges, scores, out_int32=True)
    return len(edges) - count_reached(-scores, -edges.flip(0))


def _search_on(scores: Tensor, edges: Tensor, reached: Tensor, most: int) -> Tensor:
    """Add to `reached` the edges that follow, up to `most`, where the scores reach them too."""
    steps = [1 << bit for bit in reversed(range(most.bit_length()))]
    beyond = edges.new_full((2 * steps[0],), torch.nan)  # reached by nothing
    edges = torch.cat([edges, beyond])
    for step in steps:
        edge = edges.index_select(0, reached + (step - 1))
        reached.add_(edge <= scores, alpha=step)
    return reached
