"""The one place that chooses between algorithms of equal result."""

from torch import Tensor

from brloss_d2.ops import dominance

# Values up to which the pairwise form beats the wavelet matrix, by device type: measured with
# Rank & Sort Loss, see tests/ops/test_dominance.py for their equality.
_TILED_UP_TO = {"cpu": 256, "cuda": 8192}


def prefix_ramp_sum(
    thresholds: Tensor, prefix: Tensor, values: Tensor, weights: Tensor, delta: float
) -> Tensor:
    """Ramp sums over the first `prefix[i]` values; arguments as in `dominance.wavelet`."""
    limit = _TILED_UP_TO.get(values.device.type, _TILED_UP_TO["cpu"])
    algorithm = dominance.tiled if len(values) <= limit else dominance.wavelet
    return algorithm(thresholds, prefix, values, weights, delta)
