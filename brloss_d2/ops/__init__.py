"""Primitives of the ranking losses. Needs torch alone."""

from .autograd import Term, attach
from .dispatch import prefix_ramp_sum
from .pool import BucketCells, NegativeCells, RampCells, RankingPool
from .ramp import ramp_sum

__all__ = [
    "BucketCells",
    "NegativeCells",
    "RampCells",
    "RankingPool",
    "Term",
    "attach",
    "prefix_ramp_sum",
    "ramp_sum",
]
