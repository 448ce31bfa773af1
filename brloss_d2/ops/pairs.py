"""Ramp sums of a few thousand numbers from a table of all pairs: few operations, for GPUs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from brloss_d2.ops import dense

# Numbers to compare with each other; their table takes 512 MiB.
_MAX_NUMBERS = 8192


class PairSums:
    """Sums of `H(v_j - t_i)` over the thresholds t or the values v, from a table of all of them.

    Args:
        table: (..., V, T) float64, H or a part of it.
    """

    def __init__(self, table: Tensor):
        self.table = table

    @classmethod
    def between(cls, thresholds: Tensor, values: Tensor, delta: float) -> PairSums:
        """Compare (..., T) thresholds and (..., V) values, float64."""
        if delta == 0:
            return cls(dense.ramp(values[..., None] - thresholds[..., None, :], delta))
        # hardsigmoid(x) = clip(x / 6 + 1/2, 0, 1)
        scaled = thresholds * (3 / delta)
        others = scaled if values is thresholds else values * (3 / delta)
        return cls(F.hardsigmoid(others[..., None] - scaled[..., None, :], inplace=True))

    def of_values(self, weights: Tensor) -> Tensor:
        """Compute `sum_j weights[..., j] H(v_j - t_i)` from (..., K, V) weights: (..., K, T)."""
        return weights @ self.table

    def of_ones(self) -> Tensor:
        """Compute `sum_j H(v_j - t_i)`: (..., T)."""
        return self.table.sum(-2)

    def of_thresholds(self, weights: Tensor) -> Tensor:
        """Compute `sum_i weights[..., i] H(v_j - t_i)` from (..., T) weights: (..., V)."""
        return (self.table @ weights[..., None]).squeeze(-1)

    def of_worse(self, quality: Tensor) -> PairSums:
        """Return the sums over pairs of values that are worse than the threshold alone.

        The values are the thresholds, with (..., T) `quality`. These sums are used up.
        """
        return PairSums(self.table.mul_(quality[..., None] < quality[..., None, :]))


def fits(thresholds: Tensor) -> bool:
    """Whether a table of all pairs is small enough, and the device better at it than at sorting."""
    return thresholds.device.type != "cpu" and thresholds.shape[-1] <= _MAX_NUMBERS
