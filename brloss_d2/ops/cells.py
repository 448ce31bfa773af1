"""Two streaming passes over the logits: count the negatives in cells, write their gradients."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from brloss_d2.ops.search import count_reached

# Distances that are widened to float64 at a time.
_CHUNK = 1 << 18


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
