"""Two streaming passes over the logits: count the negatives in cells, write their gradients."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.ops.search import count_reached

# Distances that are widened to float64 at a time.
_CHUNK = 1 << 18
# Cells of all copies together, where many threads add to the same cell.
_COPIED_CELLS, _MAX_COPIES = 1 << 17, 256


@dataclass(frozen=True)
class Cells:
    """Result of the first pass: C cells, and the second pass over the same logits.

    Attributes:
        count: (C,) float64, number of negatives per cell.
        offset_sum: (C,) float64, sum of their distances to the left edge of the cell, in logits.
        write: second pass, `write(level (C,), slope (C,) or None) -> (M,)` in the dtype of the
            logits, from float64: `level + slope * distance` of its cell for each negative, else 0.
    """

    count: Tensor
    offset_sum: Tensor
    write: Callable[[Tensor, Tensor | None], Tensor]


def accumulate(logits: Tensor, labels: Tensor, edges: Tensor) -> Cells:
    """Count the negatives between edges, in PyTorch.

    Args:
        logits: (M,) logits.
        labels: (M,) integers; 0 marks a negative.
        edges: (C,) float64 left edges of the cells, ascending. Negatives below the first are left
            out; the last cell has no right edge.
    """
    # A logit reaches an edge if it reaches the next number of its own precision.
    left = round_up(edges, logits.dtype)
    excess = left.double() - edges
    negatives = ((labels == 0) & (logits >= left[0])).nonzero().squeeze(1)
    offset = logits.index_select(0, negatives)
    cell = count_reached(offset, left[1:])
    # Sums of the distances to the left edge: no cancellation within a cell.
    offset.sub_(left.index_select(0, cell))
    count, offset_sum = edges.new_zeros((2, len(edges)))
    count.index_add_(0, cell, count.new_ones(()).expand(len(cell)))
    for part, distances in zip(cell.split(_CHUNK), offset.split(_CHUNK), strict=True):
        offset_sum.index_add_(0, part, distances.double())

    def write(level: Tensor, slope: Tensor | None) -> Tensor:
        if slope is None:
            value = level.to(logits.dtype).index_select(0, cell)
        else:
            value = torch.addcmul(level, slope, excess).to(logits.dtype).index_select(0, cell)
            value.addcmul_(slope.to(logits.dtype).index_select(0, cell), offset)
        return torch.zeros_like(logits).scatter_(0, negatives, value)

    return Cells(count, offset_sum.addcmul_(count, excess), write)


def accumulate_without_sync(logits: Tensor, labels: Tensor, edges: Tensor) -> Cells:
    """`accumulate` for GPUs: all logits are visited, so that the host need not know how many count.

    Those that do not count are added to a cell of their own, the first. Successive parts of the
    logits add to copies of the cells, because threads that add to the same number wait for each
    other.
    """
    size = len(edges) + 1
    copies = max(1, min(_COPIED_CELLS // size, _MAX_COPIES, len(logits) // size))
    offset = logits.double()
    cell = torch.bucketize(offset, edges, right=True, out_int32=True).mul_(labels == 0)
    offset.sub_(F.pad(edges, (1, 0)).index_select(0, cell))
    if copies > 1:
        width = len(logits) // copies
        first = torch.arange(0, copies * size, size, dtype=torch.int32, device=cell.device)
        cell[: copies * width].view(copies, width).add_(first[:, None])
    sums = edges.new_zeros((2, copies * size))
    sums[0].index_add_(0, cell, sums.new_ones(()).expand(len(cell)))
    sums[1].index_add_(0, cell, offset)
    count, offset_sum = sums.view(2, copies, size).sum(1)[:, 1:]
    distance = offset.to(logits.dtype)

    def write(level: Tensor, slope: Tensor | None) -> Tensor:
        def at_cells(values: Tensor) -> Tensor:
            table = F.pad(values.to(logits.dtype), (1, 0)).repeat(copies)
            return table.index_select(0, cell)

        value = at_cells(level)
        return value if slope is None else value.addcmul_(at_cells(slope), distance)

    return Cells(count, offset_sum, write)


def round_up(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the smallest finite numbers of `dtype` that are not below `x`, if there are any."""
    nearest = x.to(dtype)
    largest = nearest.new_full((), torch.finfo(dtype).max)
    return nearest.nextafter(largest).where(nearest < x, nearest)
