"""Primitives of the ranking losses. Needs torch only."""

from brloss_d2.ops.autograd import Term, attach, with_value
from brloss_d2.ops.dispatch import (
    Backend,
    chosen_backend,
    prefix_ramp_sum,
    ramp_sum,
    ranks_together,
    set_backend,
    use_backend,
)
from brloss_d2.ops.pool import Negatives, RankingPool, bucketed_negatives, exact_negatives
from brloss_d2.ops.pool_group import PoolGroup

__all__ = [
    "Backend",
    "Negatives",
    "PoolGroup",
    "RankingPool",
    "Term",
    "attach",
    "bucketed_negatives",
    "chosen_backend",
    "exact_negatives",
    "prefix_ramp_sum",
    "ramp_sum",
    "ranks_together",
    "set_backend",
    "use_backend",
    "with_value",
]
