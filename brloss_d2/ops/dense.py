"""The primitives by tables of all pairs, as their definitions read."""

import torch
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
    offset = logits.double()[:, None] - edges
    cell = (offset >= 0).sum(1) - 1
    member = cell[:, None] == torch.arange(len(edges), device=edges.device)
    member &= (labels == 0)[:, None]

    def write(level: Tensor, slope: Tensor | None) -> Tensor:
        value = level if slope is None else level + slope * offset
        return torch.where(member, value, 0.0).sum(1).to(logits.dtype)

    return Cells(member.sum(0).double(), torch.where(member, offset, 0.0).sum(0), write)
