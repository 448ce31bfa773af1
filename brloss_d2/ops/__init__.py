"""Primitives of the ranking losses. Needs torch alone."""

from brloss_d2.ops.autograd import Term, attach, with_value
from brloss_d2.ops.dispatch import prefix_ramp_sum
from brloss_d2.ops.pool import BucketCells, NegativeCells, RampCells, RankingPool
from brloss_d2.ops.processes import Processes
from brloss_d2.ops.ramp import ramp_sum

__all__ = [
    "BucketCells",
    "NegativeCells",
    "Processes",
    "RampCells",
    "RankingPool",
    "Term",
    "attach",
    "prefix_ramp_sum",
    "ramp_sum",
    "with_value",
]
