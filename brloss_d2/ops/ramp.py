"""Ramp sums in O((V + T) log V): the first of the two primitives behind every ranking loss.

The ramp `H(x) = clip(x / (2 delta) + 1/2, 0, 1)` is a difference of two ReLUs. A sum of ramps
over sorted values is therefore a difference of prefix sums at two positions:

    sum_j w_j H(v_j - t) = W(v >= t + delta)
                         + [WV(window) - t W(window)] / (2 delta) + W(window) / 2

with the window `t - delta <= v < t + delta` and `W`, `WV` the sums of `w` and `w v` over
a range. For `delta = 0` the window is empty and ties count as above, H(0) = 1.
"""

import math

import torch.nn.functional as F
from torch import Tensor

from brloss_d2.ops.search import count_below


def running_sums(x: Tensor) -> Tensor:
    """Inclusive prefix sums along the last axis; the same bits for the same input."""
    return x.cumsum(-1) if x.device.type == "cpu" else _blocked_cumsum(x)


def _blocked_cumsum(x: Tensor) -> Tensor:
    """`cumsum` over a square of the values, row by row: in a fixed order on GPUs too.

    There torch scans one long row in blocks that add up as they come, so that last digits vary.
    """
    size = x.shape[-1]
    width = math.isqrt(max(size - 1, 0)) + 1
    rows = F.pad(x, (0, width * width - size)).unflatten(-1, (width, width)).cumsum(-1)
    totals = rows[..., -1].unsqueeze(-2).expand(*rows.shape)
    before = totals.tril(-1).sum(-1, keepdim=True)
    return (rows + before).flatten(-2)[..., :size]


def prefix_sums(x: Tensor) -> Tensor:
    """Exclusive prefix sums along the last axis, one longer than the input: `out[..., 0] = 0`."""
    return F.pad(running_sums(x), (1, 0))


def window_sum(
    above: Tensor, mass: Tensor, moment: Tensor, thresholds: Tensor, delta: float
) -> Tensor:
    """Combine the three range sums of the module docstring into the ramp sum.

    `above` = W(v >= t + delta), `mass` = W(window), `moment` = WV(window).
    """
    if delta == 0:
        return above
    return above + (moment - thresholds * mass) / (2 * delta) + mass / 2


def ramp_sum(thresholds: Tensor, values: Tensor, weights: Tensor, delta: float) -> Tensor:
    """`sum_j weights[..., j] * H(values[j] - thresholds[i])` for every threshold.

    Args:
        thresholds: (T,) float64.
        values: (V,) float64, in any order. Centre them near 0: the window term is a difference of
            products, and its rounding error grows with their size.
        weights: (..., V) float64.
        delta: half-width of the ramp, in logits, >= 0.

    Returns:
        (..., T) float64. Time O((V + T) log V), memory O(V + T).
    """
    values, order = values.sort()
    weights = weights[..., order]
    low = count_below(thresholds - delta, values)
    high = count_below(thresholds + delta, values)
    mass, moment = prefix_sums(weights), prefix_sums(weights * values)
    return window_sum(
        mass[..., -1:] - mass[..., high],
        mass[..., high] - mass[..., low],
        moment[..., high] - moment[..., low],
        thresholds,
        delta,
    )
