"""What a criterion ranks together: the local batch, groups of its images, or all processes."""

from abc import abstractmethod

import torch
import torch.distributed as dist

from brloss_d2.criteria.matched import Criterion, CriterionOutput, MatchedPredictions
from brloss_d2.ops import PoolGroup

_POOLS = ("local", "global")


class PooledCriterion(Criterion):
    """A criterion over ranking pools.

    The published detectors rank the 4 images of one GPU together. Losses are means over a pool, so
    its size matters: with `images_per_pool` it does not depend on how many images a process has.

    Args:
        images_per_pool: split the local batch into pools of so many images and average; None is
            one pool.
        pool: "local" ranks within a process; "global" ranks the images of all processes as one
            process holding all of them would. Then every process has to compute the loss.
    """

    def __init__(self, *, images_per_pool: int | None = None, pool: str = "local"):
        super().__init__()
        check_pools(images_per_pool, pool)
        self.images_per_pool, self.pool = images_per_pool, pool

    def forward(self, matched: MatchedPredictions) -> CriterionOutput:
        size = self.images_per_pool
        if size is None or matched.num_images <= size:
            return self.rank(matched, processes_of(self.pool))
        parts = matched.split(size)
        outputs = [self.rank(part, PoolGroup()) for part in parts]
        return _average(outputs, [part.num_images for part in parts])

    @abstractmethod
    def rank(self, matched: MatchedPredictions, processes: PoolGroup) -> CriterionOutput:
        """The losses of one pool, of which the `matched` are the part of this process."""

    def extra_repr(self) -> str:
        return f"images_per_pool={self.images_per_pool}, pool={self.pool!r}"


def check_pools(images_per_pool: int | None, pool: str) -> None:
    """Refuse what `PooledCriterion` cannot rank.

    Raises:
        ValueError: for an unknown pool or a number of images that does not go with it.
    """
    if pool not in _POOLS:
        raise ValueError(f"pool must be one of {_POOLS}, got {pool!r}")
    if images_per_pool is not None and (images_per_pool < 1 or pool == "global"):
        raise ValueError(
            f"images_per_pool must be >= 1 and goes with pool='local', got {images_per_pool} "
            f"and pool={pool!r}"
        )


def processes_of(pool: str) -> PoolGroup:
    """The processes that share a pool: this one, or all where the pool is "global"."""
    several = pool == "global" and dist.is_available() and dist.is_initialized()
    return PoolGroup(dist.group.WORLD if several else None)


def _average(outputs: list[CriterionOutput], num_images: list[int]) -> CriterionOutput:
    count = len(outputs)
    return CriterionOutput(
        losses={
            name: torch.stack([o.losses[name] for o in outputs]).sum() / count
            for name in outputs[0].losses
        },
        box_weights=torch.cat([o.box_weights for o in outputs]),
        cls_total=torch.cat(
            [o.cls_total.expand(n) for o, n in zip(outputs, num_images, strict=True)]
        ),
        metrics={
            # Numbers of things add up, the others are means.
            name: sum(o.metrics[name] for o in outputs) / (1 if name.startswith("num_") else count)
            for name in outputs[0].metrics
        },
    )
