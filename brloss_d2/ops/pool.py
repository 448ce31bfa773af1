"""One ranking problem: the positives in score order and the negatives summarized in cells.

Negatives are never sorted. The breakpoints of the P ramps are; each negative finds its cell between
two breakpoints, cells accumulate counts and sums, and the gradient of a negative is a linear
function of its logit within its cell. Two streaming passes over the logits, no P x N matrix:
O((P + N) log P) time, O(P + N) memory.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.ops.cells import Cells
from brloss_d2.ops.dispatch import RampSums, accumulate, ramp_sums
from brloss_d2.ops.pairs import PairSums
from brloss_d2.ops.pool_group import PoolGroup
from brloss_d2.ops.ramp import prefix_sums, running_sums


class RankingPool:
    """Positives of one ranking problem, in ascending order of score.

    With several processes these are the positives of all of them, while the M decisions stay on
    the process that made them.

    Args:
        logits: (M,) logits of the decisions of this process.
        labels: (M,) integers: 1 positive, 0 negative, -1 ignored.
        delta: half-width of the ramp, in logits, >= 0.
        group: processes that rank their decisions together; None is this process alone.
        positives: (p,) int64 positions of the positives among the decisions, ascending. If None,
            they are searched for, which makes the host wait for a GPU.

    Attributes:
        decisions: (M,) `logits` without gradient.
        labels, delta, group: the arguments.
        index: (p,) positions of the positives of this process among its decisions, ascending.
        mine: (p,) places in score order of the positives at `where`; a slice of all if this
            process is alone.
        where: (p,) `index` in the order of `mine`.
        logits: (P,) float64 logits of all positives in score order.
        scale: gradient of the mean over the positives with respect to one of them, 1 / P, times
            the number of processes, because data-parallel training averages over these.
        poison: () NaN if any logit is NaN or infinite, else 0. It is added to values and gradients,
            so that a comparison that drops NaN never hides a diverged network.
    """

    def __init__(
        self,
        logits: Tensor,
        labels: Tensor,
        delta: float,
        group: PoolGroup | None = None,
        positives: Tensor | None = None,
    ):
        self.decisions, self.labels, self.delta = logits.detach(), labels, delta
        self.group = group or PoolGroup()
        self.index = (labels == 1).nonzero().squeeze(1) if positives is None else positives
        local = self.decisions.index_select(0, self.index)
        gathered, mine = self.group.gather(local[:, None])
        ranked, self._order = gathered.squeeze(1).sort()
        self.mine: Tensor | slice = slice(None)
        if self.group.group is None:
            self.where = self.index[self._order]
        else:
            self.where = self.index
            place = torch.empty_like(self._order)
            place[self._order] = torch.arange(len(ranked), device=ranked.device)
            self.mine = place[mine]
        total = self.group.sum(self.decisions.sum(dtype=torch.float64))
        self.poison = total - total
        self.logits = ranked.double()
        self.scale = self.group.size / max(1, len(ranked))

    def __len__(self) -> int:
        """P, the number of positives of all processes."""
        return len(self.logits)

    def collect(self, values: Tensor) -> Tensor:
        """Gather one number per positive of each process, (p,), in score order: (P,) float64."""
        return self.group.gather(values.detach().double()[:, None])[0].squeeze(1)[self._order]

    def spread(self, values: Tensor) -> Tensor:
        """Bring (P,) values in score order into the order of `collect`, (p,), the inverse of it."""
        if self.group.group is None:
            return torch.empty_like(values).index_copy_(0, self._order, values)
        return values[self.mine]

    @property
    def rank_among_positives(self) -> Tensor:
        """`sum_k H(s_k - s_i)` over the positives, k = i included: (P,) float64."""
        return self.own_sum(self.logits.new_ones(len(self)))

    @cached_property
    def own_sums(self) -> RampSums | PairSums:
        """The sums between the positives."""
        return ramp_sums(self.logits, self.logits, self.delta)

    def own_sum(self, weights: Tensor) -> Tensor:
        """`sum_k weights[..., k] * H(s_k - s_i)` over the positives, k = i included: (..., P)."""
        return self.own_sums.of_values(weights)


@dataclass(frozen=True)
class Negatives:
    """The negatives of a pool, summarized.

    Attributes:
        false_positives: (P,) float64, FP(i): the sum of H(s_j - s_i) over the negatives j.
        gradient: function from weights (P,) float64 to a tensor (M,), in the dtype of the logits:
            `sum_i weights[i] H(s_j - s_i)` at every negative j, 0 elsewhere.
    """

    false_positives: Tensor
    gradient: Callable[[Tensor], Tensor]


def exact_negatives(pool: RankingPool) -> Negatives:
    """Summarize the negatives between the breakpoints `s_i -+ delta` of all ramps: no error.

    Args:
        pool: ranking problem with at least one positive.
    """
    delta, size = pool.delta, len(pool)
    breakpoints = torch.cat([pool.logits - delta, pool.logits + delta]) if delta else pool.logits
    # Two ascending runs: a stable sort merges them.
    edges, order = breakpoints.sort(stable=True)
    # Entry i of `low` (`high`): the cell that begins at s_i - delta (s_i + delta).
    numbers = torch.arange(len(order), device=order.device)
    cell_of = torch.empty_like(order).scatter_(0, order, numbers)
    low, high = cell_of[:size], cell_of[-size:]
    cells = _cells(pool, edges)
    gap = F.pad(edges.diff(), (0, 1), value=torch.inf)
    # Where no ramp rises: with rounding, distances of huge logits would count there.
    flat = gap > 3 * delta
    reached = cells.count.sum() - running_sums(cells.count)  # negatives above the cell
    if delta == 0:
        false_positives = (reached + cells.count)[high]
    else:
        # The integral of the number of negatives above a logit, over the ramp: distances only.
        integral = prefix_sums((cells.offset_sum + reached * gap).masked_fill(flat, 0.0))
        false_positives = (integral[high] - integral[low]) / (2 * delta)

    def gradient(weights: Tensor) -> Tensor:
        weights, change = weights + pool.poison, weights.new_zeros(len(edges))
        if delta == 0:
            return cells.write(running_sums(change.index_copy(0, high, weights)), None)
        rise = weights / (2 * delta)
        change[low], change[high] = rise, -rise
        slope = running_sums(change).clamp(min=0).masked_fill(flat, 0.0)
        return cells.write(prefix_sums(slope[:-1] * gap[:-1]), slope)

    return Negatives(false_positives.clamp(min=0), gradient)


def bucketed_negatives(pool: RankingPool) -> Negatives:
    """Let the negatives between two successive positives act as their mean, times their number.

    Yavuz et al., ECCV 2024. A negative that ties with a positive belongs to the bucket above it. If
    `delta` is 0, the members of a bucket compare like their mean: the exact problem, which
    `exact_negatives` solves without rounding a mean.

    Args:
        pool: ranking problem with at least one positive.
    """
    if pool.delta == 0:
        return exact_negatives(pool)
    # The lowest bucket starts where the ramps do: negatives below reach none.
    left = torch.cat([pool.logits[:1] - pool.delta, pool.logits])
    cells = _cells(pool, left)
    # Rounding may push a mean out of its bucket. It does not matter: ramps of positive width are
    # continuous, and no mean is compared with a bucket's edge again.
    mean = left + cells.offset_sum / cells.count.clamp(min=1)

    sums = ramp_sums(pool.logits, mean, pool.delta)

    def gradient(weights: Tensor) -> Tensor:
        return cells.write(sums.of_thresholds(weights + pool.poison), None)

    return Negatives(sums.of_values(cells.count).clamp(min=0), gradient)


def _cells(pool: RankingPool, edges: Tensor) -> Cells:
    """Count the negatives of all processes between (C,) float64 edges; see `cells.accumulate`."""
    cells = accumulate(pool.decisions, pool.labels, edges)
    if pool.group.group is not None:
        count, offset_sum = pool.group.sum(torch.stack([cells.count, cells.offset_sum]))
        cells = replace(cells, count=count, offset_sum=offset_sum)
    return cells
