"""Two streaming passes over the logits: count the negatives in cells, write their gradients.

A back-end provides `accumulate`, whose result carries the second pass with it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from brloss_d2.ops.search import count_reached

# Distances that are widened to float64 at a time.
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Cells:
    """What the first pass found, C cells.

    Attributes:
        count: (C,) float64, negatives in each cell.
        offset_sum: (C,) float64, sum of their distances to the left edge of the cell.
        write: the second pass, `write(level (C,), slope (C,) or None) -> (M,)`: for each negative
            `level + slope * distance` of its cell, in the dtype of the logits, else 0.
    """

    count: Tensor
    offset_sum: Tensor
    write: Callable[[Tensor, Tensor | None], Tensor]


def accumulate(
    logits: Tensor, labels: Tensor, lowest: Tensor, center: Tensor, left: Tensor
) -> Cells:
    """Count the negatives between edges, in PyTorch.

    Args:
        logits: (M,), not centered.
        labels: (M,) integers; 0 marks a negative.
        lowest: () or (1,), negatives below this logit are left out.
        center: () or (1,), subtracted from the logits before they are compared with the edges.
        left: (C,) ascending left edges of the cells, centered, in the dtype of the logits. What is
            below the second belongs to the first cell, even if it is below the first.
    """
    negatives = ((labels == 0) & (logits >= lowest)).nonzero().squeeze(1)
    scores = logits.index_select(0, negatives) - center
    cell = count_reached(scores, left[1:])
    # Sums of the distances to the left edge: no cancellation within a cell.
    offset = scores.sub_(left.index_select(0, cell))
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
