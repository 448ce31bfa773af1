"""Ramp sums of a few thousand numbers from a table of all pairs: few operations, for GPUs."""

import torch.nn.functional as F
from torch import Tensor

from brloss_d2.ops import dense

# Pairs of a table, 64 MiB.
_MAX_PAIRS = 1 << 23


class PairSums:
    """Sums of `H(v_j - t_i)` over the thresholds t or the values v, from a table of all of them.

    Args:
        table: (V, T) float64, H or a part of it.
    """

    def __init__(self, table: Tensor):
        self.table = table

    @classmethod
    def between(cls, thresholds: Tensor, values: Tensor, delta: float) -> "PairSums":
        """Compare (T,) thresholds and (V,) values, float64."""
        return cls(pair_ramp(values[:, None] - thresholds, delta))

    def of_values(self, weights: Tensor) -> Tensor:
        """Compute `sum_j weights[..., j] H(v_j - t_i)` from (..., V) weights: (..., T)."""
        return weights @ self.table

    def of_thresholds(self, weights: Tensor) -> Tensor:
        """Compute `sum_i weights[i] H(v_j - t_i)` from (T,) weights: (V,)."""
        return self.table @ weights

    def where(self, mask: Tensor) -> "PairSums":
        """Return the sums over the pairs of a (V, T) bool mask alone."""
        return PairSums(self.table * mask)


def fits(thresholds: Tensor, values: Tensor) -> bool:
    """Whether a table of all pairs is small enough, and the device better at it than at sorting."""
    return values.device.type != "cpu" and len(thresholds) * len(values) <= _MAX_PAIRS


def pair_ramp(x: Tensor, delta: float) -> Tensor:
    """H(x) in two operations: `hardsigmoid(x) = clip(x / 6 + 1/2, 0, 1)`."""
    return dense.ramp(x, delta) if delta == 0 else F.hardsigmoid(x * (3 / delta), inplace=True)
