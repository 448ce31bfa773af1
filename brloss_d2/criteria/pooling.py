"""Ranking pools: the local batch, groups of its images, or the batches of all processes."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from brloss_d2.criteria.matched import Criterion, CriterionOutput, Metrics
from brloss_d2.losses.base import check_types
from brloss_d2.ops import PoolGroup, with_value

# A smaller sum of weights is taken for none.
_MIN_WEIGHT = 1e-10


class PooledCriterion(Criterion):
    """Base class of the criteria over ranking pools.

    The published detectors rank the 4 images of one GPU together. Losses are means over a pool, so
    its size matters: with `images_per_pool` it does not depend on the batch size of a process.

    Args:
        images_per_pool: number of images that are ranked together; the losses of the pools of a
            batch are averaged. None is one pool for the whole batch.
        pool: "local" ranks within a process; "global" ranks the images of all processes as one
            process with all of them would. Then every process has to compute the loss.

    Raises:
        ValueError: If `pool` is neither, or `images_per_pool` is below 1 or does not go with it.

    Example:
        >>> from brloss_d2.criteria import RankingCriterion
        >>> from brloss_d2.losses import GIoULoss, RankSortLoss, SelfBalancer
        >>> loss = RankSortLoss(delta=0.5)
        >>> RankingCriterion(loss, GIoULoss(), SelfBalancer(), images_per_pool=4).images_per_pool
        4
    """

    def __init__(self, *, images_per_pool: int | None = None, pool: str = "local"):
        super().__init__()
        if pool not in ("local", "global"):
            raise ValueError(f"pool must be one of ('local', 'global'), got {pool!r}")
        if images_per_pool is not None:
            check_types(images_per_pool=(images_per_pool, int))
        if images_per_pool is not None and (images_per_pool < 1 or pool == "global"):
            raise ValueError(
                f"images_per_pool must be >= 1 and goes with pool='local', got {images_per_pool} "
                f"and pool={pool!r}"
            )
        self.images_per_pool, self.pool = images_per_pool, pool

    def forward(self, matched: Any) -> CriterionOutput:
        """Compute the losses of each pool and average them.

        Args:
            matched: predictions of a batch, with `num_images` and `split(images_per_pool)`.
        """
        size = self.images_per_pool
        if size is None or matched.num_images <= size:
            return self.pool_losses(matched, world() if self.pool == "global" else PoolGroup())
        parts = matched.split(size)
        outputs = [self.pool_losses(part, PoolGroup()) for part in parts]
        per_image = [o.cls_total.expand(p.num_images) for o, p in zip(outputs, parts, strict=True)]
        count = len(parts)
        return CriterionOutput(
            losses={
                name: torch.stack([o.losses[name] for o in outputs]).sum() / count
                for name in outputs[0].losses
            },
            box_weights=torch.cat([o.box_weights for o in outputs]),
            cls_total=torch.cat(per_image),
            metrics=partial(_mean_metrics, outputs),
        )

    @abstractmethod
    def pool_losses(self, matched: Any, group: PoolGroup) -> CriterionOutput:
        """Compute the losses of one pool.

        Args:
            matched: predictions of this process in the pool.
            group: processes that share the pool.
        """


def _mean_metrics(outputs: Sequence[CriterionOutput]) -> Metrics:
    """Return the metrics of several pools: counts add up, other numbers are averaged."""
    names, *_ = parts = [output.metrics() for output in outputs]
    return {
        name: sum(part[name] for part in parts) / (1 if name.startswith("num_") else len(parts))
        for name in names
    }


def world() -> PoolGroup:
    """Return the group of all processes, or of this one if training is not distributed."""
    several = dist.is_available() and dist.is_initialized()
    return PoolGroup(dist.group.WORLD if several else None)


def weighted_mean(values: Tensor, weights: Tensor, group: PoolGroup) -> Tensor:
    """Compute `sum(w v) / sum(w)`, (...), over all processes; 0 if the weights vanish.

    The value is that of the whole pool; the gradient is that of the local part times the number of
    processes, because data-parallel training averages over these.

    Args:
        values: (..., P) values of this process.
        weights: (..., P) weights >= 0, detached.
        group: processes that share the pool.
    """
    total, weight = (values * weights).sum(-1), weights.sum(-1)
    if group.group is None:
        return total / weight.masked_fill(weight < _MIN_WEIGHT, 1.0)
    whole, weight = group.sum(torch.stack([total.detach(), weight]))
    divisor = weight.masked_fill(weight < _MIN_WEIGHT, 1.0)
    return with_value(total * group.size / divisor, whole / divisor)
