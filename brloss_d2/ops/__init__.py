"""Primitives of the ranking losses. Needs torch alone."""

from brloss_d2.ops.autograd import Term, attach, with_value
from brloss_d2.ops.dispatch import (
    Backend,
    chosen_backend,
    prefix_ramp_sum,
    ramp_sum,
    set_backend,
    use_backend,
)
from brloss_d2.ops.pool import BucketCells, NegativeCells, RampCells, RankingPool
from brloss_d2.ops.pool_group import PoolGroup

__all__ = [
    "Backend",
    "BucketCells",
    "NegativeCells",
    "PoolGroup",
    "RampCells",
    "RankingPool",
    "Term",
    "attach",
    "chosen_backend",
    "prefix_ramp_sum",
    "ramp_sum",
    "set_backend",
    "use_backend",
    "with_value",
]
