"""Two streaming passes over the logits: count the negatives in cells, write their gradients."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.ops.search import count_reached

# Logits that are widened to float64, or have their gradient written, at a time.
_CHUNK = 1 << 18
# Fewest logits by which is judged how many count.
_SAMPLE = 1 << 10
_STEPS = (4097, 257, 17)  # from one logit of a sample to the next; constants for torch.compile
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
    left = F.pad(round_up(edges, logits.dtype), (1, 0))
    step = next((step for step in _STEPS if step * _SAMPLE <= len(logits)), 1)
    sample = logits[::step] >= left[1]
    if 4 * int(sample.count_nonzero()) > 3 * len(sample):
        # Nearly all reach an edge: it takes longer to tell them apart than to visit the others.
        chosen, values = None, logits
        cell = count_reached(values, left[1:]).mul_(labels.logical_not())
    else:
        chosen = ((labels == 0) & (logits >= left[1])).nonzero().squeeze(1)
        values = logits.index_select(0, chosen)
        cell = count_reached(values, left[1:])
    sums = edges.new_zeros((2, len(left)))
    sums[0] = torch.bincount(cell, minlength=len(left))
    # In float64 before anything is subtracted: a cell may reach from an outlier to the others.
    for part, own in zip(cell.split(_CHUNK), values.split(_CHUNK), strict=True):
        sums[1].index_add_(0, part, own.double())
    sums[:, 0] = 0

    def write(lines: Tensor) -> Tensor:
        level, *slopes = lines
        if slopes:  # from the left edge of each cell: no ramp rises in a wide one
            level = torch.addcmul(level, slopes[0], left.double())
        level, *slopes = (x.to(logits.dtype) for x in (level, *slopes))
        gradient = torch.empty_like(values)
        parts = (gradient.split(_CHUNK), cell.split(_CHUNK), values.split(_CHUNK))
        for out, part, own in zip(*parts, strict=True):
            torch.index_select(level, 0, part, out=out)
            for slope in slopes:
                out.addcmul_(slope.index_select(0, part), own - left.index_select(0, part))
        if chosen is None:
            return gradient
        return torch.zeros_like(logits).scatter_(0, chosen, gradient)

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
