"""What all losses share, and the two kinds of terms of the ranking losses."""

import inspect
import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from brloss_d2.ops import Negatives, PoolGroup, RankingPool, Term

LossDict = dict[str, Tensor]


class ConfiguredModule(nn.Module):
    """Module whose `repr` shows those constructor arguments that are plain values."""

    def extra_repr(self) -> str:
        """Return `name=value` of each argument kept under its own name, modules excepted."""
        constructors = [vars(c)["__init__"] for c in type(self).__mro__ if "__init__" in vars(c)]
        names = dict.fromkeys(n for f in constructors for n in inspect.signature(f).parameters)
        return ", ".join(f"{n}={vars(self)[n]!r}" for n in names if n in vars(self))


class RankingLoss(ConfiguredModule):
    """Loss of one ranking pool of M binary decisions.

    Args:
        delta: half-width of the ramp that smooths the comparison of two logits, in logits, >= 0.
            0 compares exactly.

    Attributes:
        compute: functional form of the loss.
        needs_quality: whether the loss depends on the quality of the positives.

    Raises:
        ValueError: If `delta` is no finite number >= 0.

    Example:
        >>> from brloss_d2.losses import APLoss, RankSortLoss
        >>> [loss.needs_quality for loss in (APLoss(delta=1.0), RankSortLoss(delta=0.5))]
        [False, True]
    """

    compute: ClassVar[Callable[..., LossDict]]
    needs_quality: ClassVar[bool] = True

    def __init__(self, *, delta: float = 0.5):
        super().__init__()
        _check_delta(delta)
        self.delta = delta

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        quality: Tensor | None = None,
        *,
        positives: Tensor | None = None,
        group: PoolGroup | None = None,
    ) -> LossDict:
        """Compute the terms of the loss; arguments as in the functional form."""
        if quality is None and self.needs_quality:
            raise ValueError(f"{type(self).__name__} needs one value per positive, got None")
        return self.compute(
            logits, labels, quality, delta=self.delta, positives=positives, group=group
        )


def ranking_pool(
    logits: Tensor,
    labels: Tensor,
    values: Tensor | None,
    delta: float,
    positives: Tensor | None,
    group: PoolGroup | None,
) -> tuple[Tensor, RankingPool]:
    """Check the arguments of a ranking loss and set up its pool.

    Args:
        logits: (M,) logits.
        labels: (M,) integers: 1 positive, 0 negative, -1 ignored.
        values: (P,) quality or localization errors of the positives, None if not used.
        delta: half-width of the ramp, in logits, >= 0.
        positives: (P,) positions with label 1; None searches for them.
        group: processes whose decisions are ranked together; None is this process alone.

    Returns:
        `(logits, pool)`: the logits in at least float32 (half precision is upcast once, here) and
        the pool made of them.

    Raises:
        ValueError: If a shape or dtype does not fit, or `delta` is no finite number >= 0.
    """
    _check_delta(delta)
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
    pool = RankingPool(logits, labels, delta, group, positives)
    count = len(pool.index)
    if values is not None and values.shape != (count,):
        raise ValueError(
            f"expected one value for each of the {count} positives (labels == 1), shape "
            f"({count},), got {tuple(values.shape)}"
        )
    return logits, pool


def _check_delta(delta: float) -> None:
    if not isinstance(delta, int | float) or not 0 <= delta < math.inf:
        raise ValueError(f"delta must be a finite number >= 0, got {delta!r}")


def no_positives(pool: RankingPool) -> Term:
    """Return a term of value 0 and gradient 0 (NaN if a logit is NaN or infinite)."""
    return Term(
        pool.poison, torch.zeros_like(pool.decisions) + pool.poison.to(pool.decisions.dtype)
    )


def ranking_term(
    pool: RankingPool, negatives: Negatives, value: Tensor, error: Tensor, share: Tensor
) -> Term:
    """Return the term whose identity update raises each positive and lowers each negative.

    Args:
        pool: ranking problem with at least one positive.
        negatives: negatives of the pool.
        value: () value of the loss.
        error: (P,) update of positive i, downhill.
        share: (P,) part of `error` that a negative with H = 1 over positive i receives, uphill.
    """
    gradient = negatives.gradient(share * pool.scale)
    own = (pool.poison - error * pool.scale)[pool.mine].to(gradient.dtype)
    return Term(value + pool.poison, gradient.index_add_(0, pool.index, own))
