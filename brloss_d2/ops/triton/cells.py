"""The two streaming passes over the logits as Triton kernels; see `ops.cells`.

Logits of any precision are read as they are and compared with float64 edges. Nothing of their
number is kept between the passes: the second searches again for the cells, which costs less than
to read and write them.

Deterministic: counts are integers, distances to the left edge are summed in fixed point, with a
scale per cell that uses 62 bits. The last cell has no right edge and hence no scale; its distances
are summed in float64, block by block in order. No host sync.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from brloss_d2.ops.cells import Cells
from brloss_d2.ops.triton.launch import current_device

_BLOCK = 1024
# Cells of all copies together, 2 MiB: with few cells each block has a copy of its own, so that
# blocks do not queue for the same handful of addresses.
_COPIED_CELLS, _MAX_COPIES = 1 << 17, 256
_CELLS, _WIDE = 32, 32  # cells of a program that adds up copies, and copies at a time


@triton.jit
def _read(logits, labels, edges, at, inside, cells, step, CLASSES: tl.constexpr):
    """Logits, and their cells: -1 for those below all edges and those that are no negatives."""
    logit = tl.load(logits + at, mask=inside, other=0.0).to(tl.float64)
    if CLASSES > 0:  # labels of rows
        label = tl.load(labels + at // CLASSES, mask=inside, other=-1)
        negative = (label >= 0) & (label != at % CLASSES)
    else:
        negative = tl.load(labels + at, mask=inside, other=1) == 0
    cell = tl.full(at.shape, -1, tl.int32)
    while step > 0:
        probe = cell + step
        edge = tl.load(edges + probe, mask=negative & (probe < cells), other=float("inf"))
        cell = tl.where((probe < cells) & (edge <= logit), probe, cell)
        step //= 2
    return logit, tl.where(negative, cell, -1)


@triton.jit
def _scale(left, right, SIZE_BITS: tl.constexpr):
    """Power of 2 by which a sum of `2^SIZE_BITS` distances within a cell stays below 2^62."""
    exponent = (((right - left).to(tl.int64, bitcast=True) >> 52) & 2047) - 1022  # gap < 2^exponent
    power = tl.minimum(tl.maximum(62 - SIZE_BITS - exponent, -1000), 1000)
    return ((power + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit(do_not_specialize=["step"])  # a number that changes
def _count(
    logits, labels, edges, totals, tails, size, cells, step, copies,
    CLASSES: tl.constexpr, SIZE_BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add up the numbers of negatives and their distances to the left edges."""
    block = tl.program_id(0)
    at = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    logit, cell = _read(logits, labels, edges, at, inside, cells, step, CLASSES)
    bounded = (cell >= 0) & (cell < cells - 1)
    left = tl.load(edges + cell, mask=cell >= 0, other=0.0)
    right = tl.load(edges + cell + 1, mask=bounded, other=1.0)
    distance = logit - left
    copy = totals + (block % copies).to(tl.int64) * 2 * cells
    ones = tl.full([BLOCK], 1, dtype=tl.int64)
    tl.atomic_add(copy + cell, ones, mask=cell >= 0, sem="relaxed")
    units = tl.floor(tl.where(bounded, distance * _scale(left, right, SIZE_BITS), 0.0) + 0.5)
    tl.atomic_add(copy + cells + cell, units.to(tl.int64), mask=bounded, sem="relaxed")
    beyond = tl.where(cell == cells - 1, distance, 0.0)
    # NaN if any logit is NaN or infinite.
    tl.store(tails + block, tl.sum(beyond + (logit - logit), axis=0))


@triton.jit
def _add_up(
    edges, totals, tails, counts, distances, poison, cells, copies, blocks,
    SIZE_BITS: tl.constexpr, CELLS: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add up the copies of the cells, and the tails, which are the last cell."""
    c = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    known, wide = c < cells, tl.arange(0, WIDE)
    count, units = tl.zeros([WIDE, CELLS], tl.int64), tl.zeros([WIDE, CELLS], tl.int64)
    start = 0
    while start < copies:
        row = (start + wide)[:, None]
        at = totals + row.to(tl.int64) * 2 * cells + c[None, :]
        inside = (row < copies) & known[None, :]
        count += tl.load(at, mask=inside, other=0)
        units += tl.load(at + cells, mask=inside, other=0)
        start += WIDE
    tail = tl.zeros([BLOCK], tl.float64)
    start = 0
    while start < blocks:
        block = start + tl.arange(0, BLOCK)
        tail += tl.load(tails + block, mask=block < blocks, other=0.0)
        start += BLOCK
    last = tl.sum(tail, axis=0)
    left = tl.load(edges + c, mask=known, other=0.0)
    right = tl.load(edges + c + 1, mask=c < cells - 1, other=1.0)
    within = tl.sum(units, axis=0).to(tl.float64) / _scale(left, right, SIZE_BITS)
    tl.store(counts + c, tl.sum(count, axis=0).to(tl.float64), mask=known)
    tl.store(distances + c, tl.where(c < cells - 1, within, last), mask=known)
    tl.store(poison + c, last - last, mask=c == 0)


@triton.jit(do_not_specialize=["step"])  # a number that changes
def _write(
    logits, labels, edges, level, slope, upstream, gradient, size, cells, step,
    CLASSES: tl.constexpr, SLOPED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`level + slope * distance`, times `upstream`, at every negative, 0 elsewhere."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    logit, cell = _read(logits, labels, edges, at, inside, cells, step, CLASSES)
    value = tl.load(level + cell, mask=cell >= 0, other=0.0)
    if SLOPED:
        distance = logit - tl.load(edges + cell, mask=cell >= 0, other=0.0)
        value += tl.load(slope + cell, mask=cell >= 0, other=0.0) * distance
    store(gradient + at, value * tl.load(upstream).to(tl.float64), inside)


@triton.jit
def store(pointer, x, mask):
    """Store float64 numbers in the type of `pointer`; half precision has no conversion of them."""
    if pointer.dtype.element_ty != tl.float64:
        x = x.to(tl.float32)
    tl.store(pointer, x.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def double(x: tl.constexpr):
    """A constant in float64: Triton 3.0 reads numbers of Python in float32."""
    return tl.full([], x, tl.float64)


def first_step(size: int) -> int:
    """First step of a binary search for one of `size` entries or none: the highest bit."""
    return 1 << (size.bit_length() - 1)


class Counted(NamedTuple):
    """Result of the first pass.

    Attributes:
        counts: (C,) float64 number of negatives of each cell.
        distances: (C,) float64 sum of their distances to the left edge.
        poison: () float64, NaN if any logit is NaN or infinite, else 0; the last of `distances` is
            NaN, too.
    """

    counts: Tensor
    distances: Tensor
    poison: Tensor


@dataclass(frozen=True)
class LabeledLogits:
    """Logits, their labels and the edges of cells, all contiguous, and the passes over them.

    Attributes:
        logits: (M,) logits.
        labels: (M,) integers of which 0 marks a negative; or (R,) class of each row, K for the
            background, negative if ignored.
        classes: K if the labels are those of rows, else 0.
        edges: (C,) float64 left edges of the cells, ascending. Negatives below the first are left
            out; the last cell has no right edge.
    """

    logits: Tensor
    labels: Tensor
    classes: int
    edges: Tensor

    def count(self) -> Counted:
        """Make the first pass."""
        size, cells, blocks = len(self.logits), len(self.edges), self._blocks
        copies = max(1, min(_COPIED_CELLS // cells, _MAX_COPIES, blocks))
        totals = self.edges.new_zeros((copies, 2, cells), dtype=torch.int64)
        tails, (counts, distances) = self.edges.new_empty(blocks), self.edges.new_empty(2, cells)
        found = Counted(counts, distances, self.edges.new_empty(()))
        bits = size.bit_length()
        with current_device(self.logits):
            _count[(blocks,)](
                self.logits, self.labels, self.edges, totals, tails, size, cells, first_step(cells),
                copies, CLASSES=self.classes, SIZE_BITS=bits, BLOCK=_BLOCK,
            )  # fmt: skip
            _add_up[(triton.cdiv(cells, _CELLS),)](
                self.edges, totals, tails, *found, cells, copies, blocks,
                SIZE_BITS=bits, CELLS=_CELLS, WIDE=_WIDE, BLOCK=_BLOCK,
            )  # fmt: skip
        return found

    def write(self, level: Tensor, slope: Tensor | None, upstream: Tensor) -> Tensor:
        """Make the second pass: (M,) `(level + slope * distance) * upstream` at the negatives."""
        gradient = torch.empty_like(self.logits)
        with current_device(self.logits):
            _write[(self._blocks,)](
                self.logits, self.labels, self.edges, level, level if slope is None else slope,
                upstream, gradient, len(self.logits), len(self.edges), first_step(len(self.edges)),
                CLASSES=self.classes, SLOPED=slope is not None, BLOCK=_BLOCK,
            )  # fmt: skip
        return gradient

    @property
    def _blocks(self) -> int:
        return triton.cdiv(len(self.logits), _BLOCK)


def accumulate(logits: Tensor, labels: Tensor, edges: Tensor) -> Cells:
    """Count the negatives between edges; arguments as in `cells.accumulate`."""
    passes = LabeledLogits(logits.contiguous(), labels.contiguous(), 0, edges.contiguous())
    counts, distances, _ = passes.count()
    sums = torch.stack([counts, torch.addcmul(distances, counts, edges)])
    one = torch.ones_like(edges[:1])

    def write(lines: Tensor) -> Tensor:
        intercept, *slopes = lines[:, 1:]
        if not slopes:
            return passes.write(intercept.contiguous(), None, one)
        slope = slopes[0].contiguous()
        return passes.write(torch.addcmul(intercept, slope, edges), slope, one)

    return Cells(F.pad(sums, (1, 0)), write)
