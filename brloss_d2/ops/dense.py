"""The primitives by tables of all pairs, as their definitions read."""

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.ops.cells import Cells


def ramp(x: Tensor, delta: float) -> Tensor:
    """H(x), elementwise, in [0, 1]."""
    if delta == 0:
        return (x >= 0).to(x.dtype)
    return (x / (2 * delta) + 0.5).clamp(0, 1)


def ramp_sum(thresholds: Tensor, values: Tensor, weights: Tensor, delta: float) -> Tensor:
    """`sum_j weights[..., j] * H(values[j] - thresholds[i])`, shape `(..., T)`."""
    return weights @ ramp(values[:, None] - thresholds[None, :], delta)


def prefix_ramp_sum(
    thresholds: Tensor, prefix: Tensor, values: Tensor, weights: Tensor, delta: float
) -> Tensor:
    """The ramp sum of threshold i over the first `prefix[i]` values only, shape `(..., T)`."""
    inside = torch.arange(len(values), device=values.device)[:, None] < prefix[None, :]
    return weights @ (ramp(values[:, None] - thresholds[None, :], delta) * inside)


def accumulate(logits: Tensor, labels: Tensor, edges: Tensor) -> Cells:
    """The contract of `cells.accumulate` by a table of all logits x cells."""
    exact = logits.double()
    cell = (exact[:, None] >= edges).sum(1) * (labels == 0)
    member = (cell[:, None] == torch.arange(1, len(edges) + 1, device=edges.device)).double()
    sums = torch.stack([torch.ones_like(exact), exact]) @ member

    def write(lines: Tensor) -> Tensor:
        values = [member @ row[1:] for row in lines]
        return (values[0] + values[-1] * exact * (len(values) - 1)).to(logits.dtype)

    return Cells(F.pad(sums, (1, 0)), write)
