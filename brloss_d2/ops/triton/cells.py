"""The two streaming passes over the logits as Triton kernels; see `ops.cells`.

Deterministic: counts are integers, distances to the left edge are summed in fixed point, with a
scale per cell that uses 62 bits. The last cell has no right edge and hence
no scale; its distances are summed in float64, block by block in order. No host sync.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from brloss_d2.ops.cells import Cells
from brloss_d2.ops.triton.launch import current_device

_BLOCK = 1024
# Cells of all copies together, 2 MiB: with few cells each block has a copy of its own, so that
# blocks do not queue for the same handful of addresses.
_COPIED_CELLS = 1 << 17


@triton.jit
def _count(
    logits,
    labels,
    edges,
    scale,
    cell_of,
    totals,
    last_sums,
    size,
    cells,
    copies,
    SEARCH_STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Find the cell of each negative (-1: no negative, or left out); add up counts and offsets."""
    block = tl.program_id(0)
    at = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    logit = tl.load(logits + at, mask=inside, other=0.0)
    label = tl.load(labels + at, mask=inside, other=1)
    score = logit.to(tl.float64)
    negative = inside & (label == 0) & (score >= tl.load(edges))
    # The last cell whose left edge is not above the score; the first needs no comparison.
    cell = tl.zeros([BLOCK], dtype=tl.int32)
    for step in tl.static_range(SEARCH_STEPS):
        probe = cell + (1 << (SEARCH_STEPS - 1 - step))
        reached = negative & (probe < cells)
        edge = tl.load(edges + probe, mask=reached, other=0.0)
        cell = tl.where(reached & (edge <= score), probe, cell)
    tl.store(cell_of + at, tl.where(negative, cell, -1), mask=inside)
    offset = score - tl.load(edges + cell, mask=negative, other=0.0)
    bounded = negative & (cell < cells - 1)
    units = tl.floor(offset * tl.load(scale + cell, mask=bounded, other=0.0) + 0.5)
    copy = totals + (block % copies).to(tl.int64) * 2 * cells
    ones = tl.full([BLOCK], 1, dtype=tl.int64)
    tl.atomic_add(copy + cell, ones, mask=negative, sem="relaxed")
    tl.atomic_add(copy + cells + cell, units.to(tl.int64), mask=bounded, sem="relaxed")
    beyond = tl.where(negative & (cell == cells - 1), offset, 0.0)
    tl.store(last_sums + block, tl.sum(beyond, axis=0))


@triton.jit
def _write(
    logits,
    edges,
    cell_of,
    level,
    slope,
    gradient,
    size,
    SLOPED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`level + slope * offset` at every negative, 0 elsewhere."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    cell = tl.load(cell_of + at, mask=inside, other=-1)
    negative = cell >= 0
    value = tl.load(level + cell, mask=negative, other=0.0)
    if SLOPED:
        score = tl.load(logits + at, mask=negative, other=0.0).to(tl.float64)
        offset = score - tl.load(edges + cell, mask=negative, other=0.0)
        value += tl.load(slope + cell, mask=negative, other=0.0) * offset
    tl.store(gradient + at, value, mask=inside)


def accumulate(logits: Tensor, labels: Tensor, edges: Tensor) -> Cells:
    """Count the negatives between edges; arguments as in `cells.accumulate`."""
    logits, labels, edges = logits.contiguous(), labels.contiguous(), edges.contiguous()
    size, cells, blocks = len(logits), len(edges), triton.cdiv(len(logits), _BLOCK)
    copies = max(1, min(blocks, _COPIED_CELLS // cells))
    # Fixed point, per bounded cell: a power of 2 with which `size` offsets stay below 2^62.
    _, exponent = torch.frexp(edges.diff())  # gap < 2^exponent
    scale = (62 - size.bit_length() - exponent).clamp(-1000, 1000).double().exp2()
    cell_of = torch.empty_like(logits, dtype=torch.int32)
    totals = torch.zeros((copies, 2, cells), dtype=torch.int64, device=logits.device)
    last_sums = torch.zeros(blocks, dtype=torch.float64, device=logits.device)
    with current_device(logits):
        _count[(blocks,)](
            logits, labels, edges, scale, cell_of, totals, last_sums,
            size, cells, copies, SEARCH_STEPS=(cells - 1).bit_length(), BLOCK=_BLOCK,
        )  # fmt: skip
    count, units = totals.sum(0).double()
    offset_sum = torch.cat([units[:-1] / scale, last_sums.sum(0, keepdim=True)])

    def write(level: Tensor, slope: Tensor | None) -> Tensor:
        gradient = torch.empty_like(logits)
        with current_device(logits):
            _write[(blocks,)](
                logits, edges, cell_of, level, level if slope is None else slope,
                gradient, size, SLOPED=slope is not None, BLOCK=_BLOCK,
            )  # fmt: skip
        return gradient

    return Cells(count, offset_sum, write)
