"""One ranking problem: the positives in score order and the negatives summarized in cells.

Negatives are never sorted. The breakpoints of the P ramps are; each negative finds its cell between
two breakpoints, cells accumulate counts and sums, and the gradient of a negative is a linear
function of its logit within its cell. Two streaming passes over the logits, no P x N matrix:
O((P + N) log P) time, O(P + N) memory.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.ops.cells import Cells
from brloss_d2.ops.dispatch import RampSums, accumulate, ramp_sums
from brloss_d2.ops.pairs import PairSums
from brloss_d2.ops.pool_group import PoolGroup
from brloss_d2.ops.ramp import prefix_sums

_TINY = 1e-300


class RankingPool:
    """Positives of one ranking problem, in ascending order of score.

    With several processes these are the positives of all of them, while the M decisions stay on
    the process that made them. On a GPU a leading axis holds several problems of equal sizes, and
    so does that of each result.

    Args:
        logits: (..., M) logits of the decisions of this process.
        labels: (..., M) integers: 1 positive, 0 negative, -1 ignored.
        positives: (..., p) int64 positions of the positives among the decisions, ascending.
        delta: half-width of the ramp, in logits, >= 0.
        group: processes that rank their decisions together; None is this process alone.

    Attributes:
        decisions: (..., M) `logits` without gradient.
        labels, delta, group: the arguments.
        index: (..., p) `positives`.
        mine: (p,) places in score order of the positives at `where`; a slice of all if this
            process is alone.
        where: (..., p) `index` in the order of `mine`, among all decisions, flattened.
        logits: (..., P) float64 logits of all positives in score order.
        scale: gradient of the mean over the positives with respect to one of them, 1 / P, times
            the number of processes, because data-parallel training averages over these.
    """

    def __init__(
        self,
        logits: Tensor,
        labels: Tensor,
        positives: Tensor,
        delta: float,
        group: PoolGroup | None = None,
    ):
        self.decisions, self.labels, self.delta = logits.detach(), labels, delta
        self.group = group or PoolGroup()
        self.index = positives
        ranked, self.mine = self._gather(self.decisions.gather(-1, self.index))
        ranked, self._order = ranked.sort()
        if self.group.group is None:
            self.where = self.index.gather(-1, self._order)
        else:
            self.where = self.index
            place = torch.empty_like(self._order)
            place[self._order] = torch.arange(len(ranked), device=ranked.device)
            self.mine = place[self.mine]
        if logits.ndim > 1:
            first = torch.arange(0, logits.numel(), logits.shape[-1], device=logits.device)
            self.where = self.where + first[:, None]
        self._total = self.group.sum(self.decisions.sum(-1, keepdim=True, dtype=torch.float64))
        self.logits = self._poisoned(ranked)
        self.scale = self.group.size / max(1, len(self))

    def __len__(self) -> int:
        """P, the number of positives of all processes."""
        return self.logits.shape[-1]

    @property
    def poison(self) -> Tensor:
        """NaN if any logit is NaN or infinite, else 0: (..., 1).

        It is part of all numbers of the positives, so that a comparison that drops NaN never hides
        a diverged network.
        """
        return self._poisoned(torch.zeros_like(self._total))

    def _poisoned(self, x: Tensor) -> Tensor:
        """Add `poison`, in float64: 0 times NaN or infinity is NaN."""
        return torch.add(x, self._total, alpha=0)

    def _gather(self, values: Tensor) -> tuple[Tensor, Tensor | slice]:
        """Return (..., P) numbers of all processes, and where those of this process are."""
        if self.group.group is None:
            return values, slice(None)
        rows, mine = self.group.gather(values[:, None])
        return rows.squeeze(1), mine

    def collect(self, values: Tensor) -> Tensor:
        """Gather one number per positive, (..., p), in score order: (..., P) float64."""
        return self._poisoned(self._gather(values.detach())[0]).gather(-1, self._order)

    def spread(self, values: Tensor) -> Tensor:
        """Bring (P,) values in score order into the order of `collect`, (p,), the inverse of it."""
        if self.group.group is None:
            return torch.empty_like(values).index_copy_(0, self._order, values)
        return values[self.mine]

    @property
    def rank_among_positives(self) -> Tensor:
        """`sum_k H(s_k - s_i)` over the positives, k = i included: (..., P) float64."""
        return self.own_sums().of_ones()

    def own_sums(self) -> RampSums | PairSums:
        """Return the sums between the positives."""
        return ramp_sums(self.logits, self.logits, self.delta)

    def own_sum(self, weights: Tensor) -> Tensor:
        """`sum_k weights[..., k] * H(s_k - s_i)` over the positives: (..., K, P), as weights."""
        return self.own_sums().of_values(weights)


@dataclass(frozen=True)
class Negatives:
    """The negatives of a pool, summarized.

    Attributes:
        false_positives: (..., P) float64, FP(i): the sum of H(s_j - s_i) over the negatives j, not
            quite 0 if there are none, so that errors can be divided by it.
        gradient: function from weights (..., P) float64 to a tensor (..., M), in the dtype of the
            logits: `sum_i weights[i] H(s_j - s_i)` at every negative j, 0 elsewhere.
    """

    false_positives: Tensor
    gradient: Callable[[Tensor], Tensor]


def exact_negatives(pool: RankingPool) -> Negatives:
    """Summarize the negatives between the breakpoints `s_i -+ delta` of all ramps: no error.

    Args:
        pool: ranking problem with at least one positive.
    """
    if pool.delta == 0:
        return _counted_negatives(pool)
    # What the slope of a ramp loses at its lower and upper end.
    rise = 1 / (2 * pool.delta)
    bends = torch.linspace(-rise, rise, 2, dtype=torch.float64, device=pool.logits.device)[:, None]
    breakpoints = torch.add(pool.logits[..., None, :], bends, alpha=pool.delta / rise)
    # Two ascending runs: a stable sort merges them.
    edges, order = breakpoints.flatten(-2).sort(stable=True)
    numbers = torch.arange(edges.shape[-1], device=edges.device).expand_as(order)
    place = torch.empty_like(order).scatter_(-1, order, numbers)
    cells = _cells(pool, edges)

    # Number of negatives below each breakpoint and sum of their logits.
    below_edges = cells.sums.cumsum(-1)
    below = _take(below_edges, place).unflatten(-1, (2, -1))
    count, total = (below[..., 1, :] - below[..., 0, :]).unbind(-2)
    above = below_edges[..., 0, -1:] - below[..., 0, 1, :]
    risen = torch.addcmul(total, count, breakpoints[..., 0, :], value=-1)
    false_positives = torch.add(above, risen, alpha=rise).clamp_(min=_TINY)

    def gradient(weights: Tensor) -> Tensor:
        falls = _take((weights[..., None, :] * bends).flatten(-2), order)
        # A line that falls by f from an edge e on is f e - f x.
        bent = F.pad(edges[..., None, :], (0, 0, 0, 1), value=-1.0) * falls[..., None, :]
        lines = bent.cumsum(-1)
        lines[..., 1, -1:].zero_()  # no ramp rises there; rounding times a huge logit would
        return cells.write(F.pad(lines, (1, 0)))

    return Negatives(false_positives, gradient)


def _counted_negatives(pool: RankingPool) -> Negatives:
    """Compare without smoothing, as `delta` is 0: what counts is which cell a negative is in."""
    cells = _cells(pool, pool.logits)
    below_edges = cells.sums[..., :1, :].cumsum(-1).squeeze(-2)  # integers: exact in any order
    reached = below_edges[..., -1:] - below_edges[..., :-1]
    false_positives = torch.clamp(reached + pool.poison, min=_TINY)

    def gradient(weights: Tensor) -> Tensor:
        return cells.write(prefix_sums(weights)[..., None, :])

    return Negatives(false_positives, gradient)


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
    edges = torch.cat([pool.logits[..., :1] - pool.delta, pool.logits], -1)
    cells = _cells(pool, edges)
    count, total = cells.sums[..., 1:].unbind(-2)
    # An empty bucket (NaN) is at its lower edge: that keeps means in order, which are fast to
    # search. Rounding may push a mean across its upper edge. It does not matter: ramps of positive
    # width are continuous, and no mean is compared with a bucket's edge again.
    sums = ramp_sums(pool.logits, torch.fmax(total / count, edges), pool.delta)

    def gradient(weights: Tensor) -> Tensor:
        return cells.write(F.pad(sums.of_thresholds(weights)[..., None, :], (1, 0)))

    false_positives = sums.of_values(count[..., None, :]).squeeze(-2)
    return Negatives(false_positives.clamp(min=_TINY), gradient)


def _cells(pool: RankingPool, edges: Tensor) -> Cells:
    """Count the negatives of all processes between (..., C) edges; see `cells.accumulate`."""
    cells = accumulate(pool.decisions, pool.labels, edges)
    return replace(cells, sums=pool.group.sum(cells.sums))


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Return `x[..., index]`, each problem at its own index; fast on a CPU."""
    if index.ndim == 1:
        return x.index_select(-1, index)
    return x.gather(
        -1, index.view(-1, *[1] * (x.ndim - 2), index.shape[-1]).expand(*x.shape[:-1], -1)
    )
