"""Two-component Gaussian mixtures of many small samples at once."""

import math

import torch
from torch import Tensor

_REGULARISATION = 1e-5
_TOLERANCE = 1e-3
_MAX_ITERATIONS = 100
# Iterations between two looks at whether all samples have converged; each look stalls a GPU.
_CHECK_PERIOD = 10


def split_in_two(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a mixture of two Gaussians to each row by expectation maximization.

    The settings of Probabilistic Anchor Assignment (Kim & Lee, ECCV 2020): the components start at
    the minimum and the maximum with weight 1/2 and variance 1, variances get 1e-5 added, and a row
    stops once its mean log-likelihood changes by less than 1e-3, after 100 iterations at the most.

    Args:
        values: (G, n) samples.
        valid: (G, n) bool, which entries there are; at least two a row.

    Returns:
        `(lower, log_likelihood)`: (G, n) bool, whether the component that started at the minimum is
        the more likely one, and (G, n) float64, log-likelihood under the mixture. Both mean nothing
        where an entry is not valid.
    """
    x, mask = values.double(), valid.double()
    lowest = x.masked_fill(~valid, math.inf).amin(1)
    highest = x.masked_fill(~valid, -math.inf).amax(1)
    x = torch.where(valid, x, lowest[:, None])
    mean = torch.stack([lowest, highest], 1)
    weight, precision = torch.full_like(mean, 0.5), torch.ones_like(mean)
    previous = x.new_full((len(x),), -math.inf)
    active = torch.ones_like(previous, dtype=torch.bool)
    for iteration in range(_MAX_ITERATIONS):
        joint = _log_joint(x, mean, precision, weight)
        total = joint.logsumexp(2)
        level = (total * mask).sum(1) / mask.sum(1)
        new = _maximize(x, mask, (joint - total[..., None]).exp())
        # A row that has converged keeps what it had.
        mean, precision, weight = (
            torch.where(active[:, None], fresh, old)
            for fresh, old in zip(new, (mean, precision, weight), strict=True)
        )
        active = active & ~((level - previous).abs() < _TOLERANCE)
        previous = level
        if iteration % _CHECK_PERIOD == _CHECK_PERIOD - 1 and not active.any():
            break
    joint = _log_joint(x, mean, precision, weight)
    return joint[..., 0] >= joint[..., 1], joint.logsumexp(2)


def _log_joint(x: Tensor, mean: Tensor, precision: Tensor, weight: Tensor) -> Tensor:
    """(G, n, 2) log of density times weight of each component."""
    square = (x[..., None] - mean[:, None]) ** 2 * precision[:, None]
    scale = 0.5 * (precision.log() - math.log(2 * math.pi)) + weight.log()
    return scale[:, None] - 0.5 * square


def _maximize(x: Tensor, mask: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(G, 2) means, precisions and weights, given how much each component accounts for."""
    share = share * mask[..., None]
    count = share.sum(1) + 10 * torch.finfo(x.dtype).eps
    mean = (share * x[..., None]).sum(1) / count
    variance = (share * x[..., None] ** 2).sum(1) / count - mean**2 + _REGULARISATION
    return mean, 1 / variance, count / count.sum(1, keepdim=True)
