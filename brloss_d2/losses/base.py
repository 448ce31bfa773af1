"""What all ranking losses share: arguments, checks and the two kinds of terms."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from brloss_d2.ops import BucketCells, NegativeCells, PoolGroup, RampCells, RankingPool, Term

LossDict = dict[str, Tensor]


class RankingLoss(nn.Module):
    """A loss over one ranking pool of M binary decisions.

    Args:
        delta: half-width of the ramp that smooths the comparison of two logits, in logits, >= 0.
            0 compares exactly.

    Attributes:
        compute: the functional form.
        needs_quality: whether it does anything with the quality of the positives.
    """

    compute: ClassVar[Callable[..., LossDict]]
    needs_quality: ClassVar[bool] = True

    def __init__(self, *, delta: float):
        super().__init__()
        if not delta >= 0:
            raise ValueError(f"delta must be >= 0, got {delta}")
        self.delta = delta

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        quality: Tensor | None = None,
        *,
        processes: PoolGroup | None = None,
    ) -> LossDict:
        """Compute the terms of the loss.

        Args:
            logits: (M,) unbounded scores, floating point of any precision.
            labels: (M,) integers: 1 positive, 0 negative, -1 ignored.
            quality: (P,) in [0, 1], one number for each positive in the order in which
                `labels == 1` occurs. aLRP Loss takes localization errors >= 0 in its place.
            processes: rank the decisions of all of these together. Values are then those of the
                whole pool on every process, and gradients such that their average over the
                processes is the gradient of the whole pool. All of them have to call.

        Returns:
            Named 0-dim losses, each with a gradient of its own. All are 0 and attached to the graph
            where there is no positive; NaN where a logit is NaN or infinite.

        Raises:
            ValueError: for arguments of wrong shape or kind.
        """
        if quality is None and self.needs_quality:
            raise ValueError(f"{type(self).__name__} needs a number for each positive, got None")
        return self.compute(logits, labels, quality, delta=self.delta, processes=processes)

    def extra_repr(self) -> str:
        return f"delta={self.delta}"


def ranking_pool(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor | None,
    delta: float,
    processes: PoolGroup | None,
) -> tuple[Tensor, RankingPool]:
    """Check the arguments of a ranking loss and set up its pool.

    Returns:
        `(logits, pool)`: the logits in at least float32 (half precision is upcast once, here) and
        the pool made of them.
    """
    if logits.ndim != 1 or not logits.is_floating_point():
        raise ValueError(
            f"logits must be a floating point tensor of shape (M,), got {logits.dtype} "
            f"{tuple(logits.shape)}; flatten (R, K) logits together with their labels"
        )
    if labels.shape != logits.shape or labels.is_floating_point():
        raise ValueError(
            f"labels must be integers (1 positive, 0 negative, -1 ignored) of the shape of logits "
            f"{tuple(logits.shape)}, got {labels.dtype} {tuple(labels.shape)}"
        )
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    pool = RankingPool(logits, labels, delta, processes)
    count = len(pool.index)
    if quality is not None and quality.shape != (count,):
        raise ValueError(
            f"expected one value for each of the {count} positives (labels == 1), shape "
            f"({count},), got {tuple(quality.shape)}"
        )
    return logits, pool


def no_positives(pool: RankingPool) -> Term:
    """A term of value 0 and gradient 0 (NaN if a logit is)."""
    return Term(pool.poison, torch.zeros_like(pool.logits) + pool.poison.to(pool.logits.dtype))


def cells_of(pool: RankingPool, *, bucketed: bool) -> NegativeCells:
    """The negatives of a pool, exactly or in the buckets between its positives."""
    # Without smoothing a bucket's members all compare like its mean: the exact form is the same.
    return BucketCells(pool) if bucketed and pool.delta > 0 else RampCells(pool)


def share_out(error: Tensor, mass: Tensor, smallest: float = 0.0) -> Tensor:
    """`error / mass` where the mass exceeds `smallest`, else 0."""
    return torch.where(mass > smallest, error / mass, 0.0)


def ranking_term(
    pool: RankingPool, cells: NegativeCells, value: Tensor, error: Tensor, share: Tensor
) -> Term:
    """A term that lowers each negative and raises each positive (identity update).

    Args:
        value: () of the loss.
        error: (P,) what positive i receives, downhill.
        share: (P,) what a negative with H = 1 over positive i receives of it, uphill.
    """
    gradient = cells.gradient(share * pool.scale)
    own = (pool.poison - error * pool.scale)[pool.mine].to(gradient.dtype)
    return Term(value + pool.poison, gradient.index_add_(0, pool.index, own))
