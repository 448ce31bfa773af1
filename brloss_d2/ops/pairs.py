"""Ramp sums of few numbers from a table of all pairs: few operations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.ops import dense

# Numbers up to which comparing all pairs beats sorting: measured on CPUs, whose cache has to hold
# the table of 3 MiB; estimated from operation counts on GPUs, where it takes 512 MiB.
_MAX_NUMBERS = {"cpu": 640, "cuda": 8192}


def device_kind(x: Tensor) -> str:
    """Return "cpu", or "cuda" for any accelerator: the key of what is measured for each."""
    return "cpu" if x.device.type == "cpu" else "cuda"


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


def fits(numbers: Tensor) -> bool:
    """Whether the device is better at a table of all pairs of (..., V) numbers than at sorting."""
    kind = device_kind(numbers)
    # Inductor's C++ does not compile for the padded quality that the table is multiplied by.
    compiles = kind == "cpu" and torch.compiler.is_compiling()
    return numbers.shape[-1] <= _MAX_NUMBERS[kind] and not compiles
