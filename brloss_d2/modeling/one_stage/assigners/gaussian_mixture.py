"""Two-component Gaussian mixtures of many small samples at once."""

import math

import torch
from torch import Tensor

_REGULARIZATION = 1e-5
_TOLERANCE = 1e-3
_MAX_ITERATIONS = 100


def split_in_two(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a mixture of two Gaussians to each row by expectation maximization.

    The settings of Probabilistic Anchor Assignment (Kim & Lee, ECCV 2020): the components start at
    the minimum and the maximum with weight 1/2 and variance 1, 1e-5 is added to variances, and a
    row stops once its mean log-likelihood changes by less than 1e-3, or after 100 iterations. Rows
    with less than two samples are left alone.

    Best on the CPU: the many small steps, and the question whether all rows have stopped, would
    take a GPU longer.

    Args:
        values: (G, n) samples.
        valid: (G, n) bool, which entries are samples.

    Returns:
        `(lower, log_likelihood)`: (G, n) bool, whether the component that started at the minimum is
        the more likely one, and (G, n) float64 log-likelihood under the mixture. Both have no
        meaning for entries that are not valid, and in rows with less than two that are.
    """
    x, mask = values.double(), valid.double()
    lowest = x.masked_fill(~valid, math.inf).amin(1)
    highest = x.masked_fill(~valid, -math.inf).amax(1)
    x = torch.where(valid, x, lowest[:, None])
    # (3, G, 2) mean, precision and weight of each component.
    start = torch.stack([lowest, highest], 1)
    mixture = torch.stack([start, torch.ones_like(start), torch.full_like(start, 0.5)])
    powers, size = torch.stack([mask, x * mask, x**2 * mask], 2), mask.sum(1)
    previous = x.new_full((len(x),), -math.inf)
    active = size >= 2
    for _ in range(_MAX_ITERATIONS):
        joint = _log_joint(x, *mixture)
        total = joint.logsumexp(2)
        level = (total * mask).sum(1) / size
        # Maximization: sums over the samples with the share of each component as weight.
        share = (joint - total[..., None]).exp()
        moments = share.transpose(1, 2) @ powers
        count = moments[..., 0] + 10 * torch.finfo(x.dtype).eps
        mean, mean_square = (moments[..., 1:] / count[..., None]).unbind(2)
        variance = mean_square - mean**2 + _REGULARIZATION
        new = torch.stack([mean, 1 / variance, count / count.sum(1, keepdim=True)])
        # A row that has converged keeps its parameters.
        mixture = torch.where(active[:, None], new, mixture)
        active = active & ((level - previous).abs() >= _TOLERANCE)
        previous = level
        if not active.any():
            break
    joint = _log_joint(x, *mixture)
    return joint[..., 0] >= joint[..., 1], joint.logsumexp(2)


def _log_joint(x: Tensor, mean: Tensor, precision: Tensor, weight: Tensor) -> Tensor:
    """(G, n, 2) log of density times weight of each component."""
    square = (x[..., None] - mean[:, None]) ** 2 * precision[:, None]
    scale = 0.5 * (precision.log() - math.log(2 * math.pi)) + weight.log()
    return scale[:, None].sub(square, alpha=0.5)
