"""Two streaming passes over the logits: count the negatives in cells, write their gradients."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from brloss_d2.ops.search import count_reached

# Logits that are widened to float64, or have their gradient written, at a time.
_CHUNK = 1 << 18
# Cells of all copies together, where many threads add to the same cell.
_COPIED_CELLS, _MAX_COPIES = 1 << 17, 256


@dataclass(frozen=True)
class Cells:
    """Result of the first pass, and the second pass over the same logits.

    C edges make C + 1 cells. The first, below all edges, counts as empty.

    Attributes:
        sums: (..., 2, C + 1) float64, number of negatives per cell and sum of their logits.
        write: second pass, `write(lines) -> (..., M)` in the dtype of the logits: the function of
            its cell at the logit of each negative, else 0. `lines` are (..., 2, C + 1) float64
            intercepts and slopes, 0 in the first cell, or (..., 1, C + 1) intercepts alone.
    """

    sums: Tensor
    write: Callable[[Tensor], Tensor]


def accumulate(logits: Tensor, labels: Tensor, edges: Tensor) -> Cells:
    """Count the negatives between edges, in PyTorch.

    Args:
        logits: (M,) logits.
        labels: (M,) integers; 0 marks a negative.
        edges: (C,) float64, ascending. A logit on an edge belongs to the cell above.
    """
    # A logit reaches an edge if it reaches the next number of its own precision.
    left = round_up(edges, logits.dtype)
    negatives = ((labels == 0) & (logits >= left[0])).nonzero().squeeze(1)
    offset = logits.index_select(0, negatives)
    cell = count_reached(offset, left[1:])
    sums = edges.new_zeros((2, len(edges) + 1))
    count, total = sums[:, 1:]
    count.index_add_(0, cell, count.new_ones(()).expand(len(cell)))
    # In float64 before anything is subtracted: a cell may reach from an outlier to the others.
    for part, values in zip(cell.split(_CHUNK), offset.split(_CHUNK), strict=True):
        total.index_add_(0, part, values.double())
    offset.sub_(left.index_select(0, cell))  # to the left edge; no ramp rises in a wide cell
    left = left.double()

    def write(lines: Tensor) -> Tensor:
        intercept, *slopes = lines[:, 1:]
        level = torch.addcmul(intercept, slopes[0], left) if slopes else intercept
        level, slopes = level.to(logits.dtype), [x.to(logits.dtype) for x in slopes]
        gradient = torch.zeros_like(logits)
        parts = (negatives.split(_CHUNK), cell.split(_CHUNK), offset.split(_CHUNK))
        for where, part, distances in zip(*parts, strict=True):
            value = level.index_select(0, part)
            for slope in slopes:
                value.addcmul_(slope.index_select(0, part), distances)
            gradient.scatter_(0, where, value)
        return gradient

    return Cells(sums, write)


def accumulate_without_sync(logits: Tensor, labels: Tensor, edges: Tensor) -> Cells:
    """`accumulate` for GPUs: all logits are visited, so that the host need not know how many count.

    Those that do not count are in the first cell. Successive parts of the logits add to copies of
    the cells, because threads that add to the same number wait for each other.

    Args:
        logits: (..., M) logits.
        labels: (..., M) integers; 0 marks a negative.
        edges: (..., C) float64, ascending.
    """
    size, length = edges.shape[-1] + 1, logits.shape[-1]
    pools = logits.numel() // max(1, length)
    copies = max(1, min(_COPIED_CELLS // size, _MAX_COPIES, length // size)) if pools == 1 else 1
    exact = logits.double()
    cell = torch.searchsorted(edges, exact, right=True, out_int32=True).mul_(labels == 0)
    rows = pools * copies
    if rows > 1:
        width = logits.numel() // rows
        first = torch.arange(0, rows * size, size, dtype=torch.int32, device=cell.device)
        cell.view(-1)[: rows * width].view(rows, width).add_(first[:, None])
    cell = cell.view(-1)
    sums = edges.new_zeros((2, rows * size))
    sums[0].index_add_(0, cell, sums.new_ones(()).expand(len(cell)))
    sums[1].index_add_(0, cell, exact.view(-1))
    sums = sums.view(2, pools, copies, size).sum(2).transpose(0, 1)
    sums[..., 0].zero_()

    def write(lines: Tensor) -> Tensor:
        rows = lines.unflatten(-2, (-1, 1)).movedim(-3, 0)
        tables = rows.repeat(*[1] * (rows.ndim - 2), copies, 1).flatten(1)
        intercept, *slopes = (table.index_select(0, cell) for table in tables)
        if slopes:
            intercept.addcmul_(slopes.pop(), logits.reshape(-1))  # popped: its memory is free
        return intercept.to(logits.dtype).view_as(logits)

    return Cells(sums.reshape(*edges.shape[:-1], 2, size), write)


def round_up(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the smallest finite numbers of `dtype` that are not below `x`, if there are any."""
    nearest = x.to(dtype)
    largest = nearest.new_full((), torch.finfo(dtype).max)
    return nearest.nextafter(largest).where(nearest < x, nearest)
