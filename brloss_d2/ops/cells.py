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
            logits: `level + slope * distance` of its cell for each negative, else 0.
    """

    count: Tensor
    offset_sum: Tensor
    write: Callable[[Tensor, Tensor | None], Tensor]


def accumulate(
    logits: Tensor, labels: Tensor, lowest: Tensor, center: Tensor, left: Tensor
) -> Cells:
    """Count the negatives between edges, in PyTorch.

    Args:
        logits: (M,) logits, not centered.
        labels: (M,) integers; 0 marks a negative.
        lowest: () or (1,) logit below which negatives are left out.
        center: () or (1,) logit subtracted from `logits` before they are compared with the edges.
        left: (C,) left edges of the cells, ascending, centered, in the dtype of the logits. All
            logits below the second edge belong to the first cell, even those below the first.
    """
    negatives = ((labels == 0) & (logits >= lowest)).nonzero().squeeze(1)
    centered = logits.index_select(0, negatives) - center
    cell = count_reached(centered, left[1:])
    # Sums of the distances to the left edge: no cancellation within a cell.
    offset = centered.sub_(left.index_select(0, cell))
    count, offset_sum = left.new_zeros((2, len(left)), dtype=torch.float64)
    count.index_add_(0, cell, count.new_ones(()).expand(len(cell)))
    for part, distances in zip(cell.split(_CHUNK), offset.split(_CHUNK), strict=True):
        offset_sum.index_add_(0, part, distances.double())

    def write(level: Tensor, slope: Tensor | None) -> Tensor:
        value = level.to(logits.dtype).index_select(0, cell)
        if slope is not None:
            value.addcmul_(slope.to(logits.dtype).index_select(0, cell), offset)
        return torch.zeros_like(logits).scatter_(0, negatives, value)

    return Cells(count, offset_sum, write)


def accumulate_without_sync(
    logits: Tensor, labels: Tensor, lowest: Tensor, center: Tensor, left: Tensor
) -> Cells:
    """`accumulate` for GPUs: all logits are visited, so that the host need not know how many count.

    Those that do not count are added to a cell of their own. Successive parts of the logits add to
    copies of the cells, because threads that add to the same number wait for each other.
    """
    size = len(left) + 1
    copies = max(1, min(_COPIED_CELLS // size, _MAX_COPIES, len(logits) // size))
    centered = logits - center
    cell = torch.bucketize(centered, left[1:], right=True, out_int32=True)
    left_out = (labels != 0) | (logits < lowest)
    cell.masked_fill_(left_out, size - 1)
    padded = F.pad(left, (0, 1))
    offset = centered.sub_(padded.index_select(0, cell))
    if copies > 1:
        width = len(logits) // copies
        first = torch.arange(0, copies * size, size, dtype=torch.int32, device=cell.device)
        cell[: copies * width].view(copies, width).add_(first[:, None])
    sums = logits.new_zeros((2, copies * size), dtype=torch.float64)
    sums[0].index_add_(0, cell, sums.new_ones(()).expand(len(cell)))
    sums[1].index_add_(0, cell, offset.double())
    count, offset_sum = sums.view(2, copies, size).sum(1)[:, :-1]

    def write(level: Tensor, slope: Tensor | None) -> Tensor:
        def at_cells(values: Tensor) -> Tensor:
            table = F.pad(values.to(logits.dtype), (0, 1)).repeat(copies)
            return table.index_select(0, cell)

        value = at_cells(level)
        if slope is None:
            return value
        return value.addcmul_(at_cells(slope), offset).masked_fill_(left_out, 0.0)

    return Cells(count, offset_sum, write)
