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


def accumulate(
    logits: Tensor, labels: Tensor, lowest: Tensor, center: Tensor, left: Tensor
) -> Cells:
    """The contract of `cells.accumulate` by a table of all logits x cells."""
    scores = (logits - center).double()
    edges = left.double()
    cell = (scores[:, None] >= edges[1:]).sum(1)
    member = cell[:, None] == torch.arange(len(left), device=left.device)
    member &= ((labels == 0) & (logits >= lowest))[:, None]
    offset = scores[:, None] - edges

    def write(level: Tensor, slope: Tensor | None) -> Tensor:
        value = level if slope is None else level + slope * offset
        return torch.where(member, value, 0.0).sum(1).to(logits.dtype)

    return Cells(member.sum(0).double(), torch.where(member, offset, 0.0).sum(0), write)
