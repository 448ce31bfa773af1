"""One ranking problem: the positives in score order and the negatives summarized in cells.

Negatives are never sorted. The breakpoints of the P ramps are; each negative finds its cell
between two breakpoints by binary search, cells accumulate counts and sums, and the gradient of a
negative is a linear function of its score in its cell. Two streaming passes over the logits, no
P x N matrix: O((P + N) log P) time, O(P + N) memory.
"""

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from brloss_d2.ops.dispatch import accumulate, ramp_sum
from brloss_d2.ops.pool_group import PoolGroup
from brloss_d2.ops.ramp import prefix_sums, running_sums, window_sum


class RankingPool:
    """Positives of one ranking problem, in ascending order of score.

    With several processes these are the positives of all of them, while logits and labels stay
    where they are.

    Attributes:
        index: (p,) positions of this process's positives among its logits, as they occur.
        mine: (p,) where they are in score order.
        scores: (P,) float64 logits of all positives in score order, centered on the lowest one
            unless `delta` is 0 (where only comparisons count, which centering could round).
        scale: gradient of the mean over the positives with respect to one of them, 1 / P, times
            the number of processes: data-parallel training averages over these.
        poison: () NaN where any logit is NaN or infinite, else 0. Added to values and gradients,
            so that a broken network is never hidden by a comparison that drops NaN.
    """

    def __init__(
        self, logits: Tensor, labels: Tensor, delta: float, processes: PoolGroup | None = None
    ):
        self.logits, self.labels, self.delta = logits.detach(), labels, delta
        self.processes = processes or PoolGroup()
        self.index = (labels == 1).nonzero().squeeze(1)
        positives, mine = self.processes.gather(self.logits[self.index, None])
        raw, self._order = positives.squeeze(1).sort()
        place = torch.empty_like(self._order)
        place[self._order] = torch.arange(len(raw), device=raw.device)
        self.mine = place[mine]
        total = self.processes.sum(self.logits.sum(dtype=torch.float64))
        self.poison = (total * 0).abs()
        self.center = raw[:1] if delta > 0 else raw.new_zeros(1)
        self.lowest = raw[:1]
        self.scores = raw.double() - self.center.double()
        self.scale = self.processes.size / max(1, len(raw))

    def __len__(self) -> int:
        """P, the number of positives of all processes."""
        return len(self.scores)

    def collect(self, values: Tensor) -> Tensor:
        """(p,) one number for each positive of this process, to (P,) of all in score order."""
        return self.processes.gather(values.detach().double()[:, None])[0].squeeze(1)[self._order]

    @cached_property
    def rank_among_positives(self) -> Tensor:
        """`sum_k H(s_k - s_i)` over the positives, k = i included: (P,) float64."""
        return self.own_sum(self.scores.new_ones(len(self)))

    def own_sum(self, weights: Tensor) -> Tensor:
        """`sum_k weights[..., k] * H(s_k - s_i)` over the positives, k = i included: (..., P)."""
        return ramp_sum(self.scores, self.scores, weights, self.delta)


class NegativeCells(ABC):
    """The negatives of a pool, counted between `edges`.

    Cell c holds the scores from `edges[c - 1]` (inclusive) to `edges[c]` (exclusive).

    Args:
        pool: at least one positive.
        edges: (E,) ascending, centered, in the dtype of the logits.
    """

    def __init__(self, pool: RankingPool, edges: Tensor):
        self.pool = pool
        # The lowest cell starts where the relevant negatives do.
        self.left = torch.cat([edges.new_zeros(1) - pool.delta, edges])
        # Only what some ramp reaches.
        lowest = pool.lowest - pool.delta
        self.cells = accumulate(pool.logits, pool.labels, lowest, pool.center, self.left)
        sums = torch.stack([self.cells.count, self.cells.offset_sum])
        self.count, self.offset_sum = pool.processes.sum(sums)

    @property
    @abstractmethod
    def false_positives(self) -> Tensor:
        """FP(i), the sum of H(s_j - s_i) over the negatives j: (P,) float64."""

    @abstractmethod
    def levels(self, weights: Tensor) -> tuple[Tensor, Tensor | None]:
        """`sum_i weights[i] H(s - s_i)` as level at the left edge and slope of each cell."""

    def gradient(self, weights: Tensor) -> Tensor:
        """(M,): `sum_i weights[i] H(s_j - s_i)` at every negative j, 0 elsewhere."""
        return self.cells.write(*self.levels(weights + self.pool.poison))


class RampCells(NegativeCells):
    """Exact: the edges are the breakpoints `s_i -+ delta` of all ramps."""

    def __init__(self, pool: RankingPool):
        scores, delta, size = pool.scores, pool.delta, len(pool)
        breakpoints = torch.cat([scores - delta, scores + delta]) if delta > 0 else scores
        # Two ascending runs: a stable sort merges them.
        edges, order = breakpoints.to(pool.logits.dtype).sort(stable=True)
        # Entry i of `low` (`high`): the cell that begins at s_i - delta (s_i + delta).
        numbers = torch.arange(1, len(order) + 1, device=order.device)
        cell_of = torch.empty_like(order).scatter_(0, order, numbers)
        self.low, self.high = cell_of[:size], cell_of[-size:]
        super().__init__(pool, edges)

    @property
    def false_positives(self) -> Tensor:
        mass = prefix_sums(self.count)
        moment = prefix_sums(self.offset_sum + self.count * self.left.double())
        return window_sum(
            mass[-1] - mass[self.high],
            mass[self.high] - mass[self.low],
            moment[self.high] - moment[self.low],
            self.pool.scores,
            self.pool.delta,
        ).clamp(min=0)

    def levels(self, weights: Tensor) -> tuple[Tensor, Tensor | None]:
        change = weights.new_zeros(len(self.left))
        if self.pool.delta == 0:
            return running_sums(change.index_copy(0, self.high, weights)), None
        rise = weights / (2 * self.pool.delta)
        change[self.low], change[self.high] = rise, -rise
        slope = running_sums(change).clamp(min=0)
        climb = slope[:-1] * self.left.double().diff()
        return prefix_sums(climb), slope


class BucketCells(NegativeCells):
    """Bucketed (Yavuz et al., ECCV 2024): each cell acts as its mean, weighted by its size.

    The edges are the positives, so that a negative which ties with a positive ranks above it. For
    `delta` 0 this is the exact problem, which `RampCells` solves without rounding a mean.
    """

    def __init__(self, pool: RankingPool):
        super().__init__(pool, pool.scores.to(pool.logits.dtype))
        # Rounding may push a prototype out of its bucket. It does not matter: ramps of positive
        # width are continuous, and no prototype is compared with a threshold again.
        self.mean = self.left.double() + self.offset_sum / self.count.clamp(min=1)

    @property
    def false_positives(self) -> Tensor:
        return ramp_sum(self.pool.scores, self.mean, self.count, self.pool.delta).clamp(min=0)

    def levels(self, weights: Tensor) -> tuple[Tensor, Tensor | None]:
        # H(m - s_i) = H((-s_i) - (-m)): the mirrored sum.
        return ramp_sum(-self.mean, -self.pool.scores, weights, self.pool.delta), None
