"""Sine encodings of cells and boxes (Vaswani et al. 2017; Carion et al. 2020)."""

import math

import torch
from torch import Tensor

from brloss_d2.utils.devices import upload


def sine_map(mask: Tensor, dim: int, temperature: float = 10000.0, offset: float = -0.5) -> Tensor:
    """Encode the row and column of each cell, counted without the padding.

    Always float32, in the order of operations of the published models: in a row or column that is
    padding only, the count is divided by 1e-6, the angle is near -3e6, and its sine is rounding.

    Args:
        mask: (N, H, W) bool, True for padded cells.
        dim: channels per axis, even.
        temperature: base T of the frequencies T^(-2i / dim), i = 0, ..., dim / 2 - 1.
        offset: number added to the counts, which start at 1.

    Returns:
        (N, 2 * dim, H, W) in [-1, 1]: the channels of y, then those of x.
    """
    angles = []
    for axis in (1, 2):
        count = (~mask).cumsum(axis, dtype=torch.float32)
        last = count.narrow(axis, count.shape[axis] - 1, 1)
        angles.append((count + offset) / (last + 1e-6) * (2 * math.pi))
    encoded = [_sine(angle, dim, temperature) for angle in angles]
    return torch.cat(encoded, dim=-1).permute(0, 3, 1, 2)


def sine_box(boxes: Tensor, dim: int, temperature: float = 10000.0) -> Tensor:
    """Encode boxes, in float32 or finer.

    Args:
        boxes: (..., 4) cxcywh, normalized by the size of the image.
        dim: channels for each of the four numbers, even.
        temperature: base T of the frequencies T^(-2i / dim), i = 0, ..., dim / 2 - 1.

    Returns:
        (..., 4 * dim) in [-1, 1]: the channels of x, y, width and height.
    """
    angles = boxes.to(torch.promote_types(boxes.dtype, torch.float32)) * (2 * math.pi)
    return _sine(angles, dim, temperature).flatten(-2)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Convert probabilities to logits: log(x / (1 - x)).

    Args:
        x: probabilities of any shape, clamped to [0, 1].
        eps: smallest value of x and of 1 - x in the ratio.

    Returns:
        Logits in the shape of `x`, finite.
    """
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


def _sine(angles: Tensor, dim: int, temperature: float) -> Tensor:
    """Encode angles (...) as (..., dim): sine and cosine in turn at each of dim / 2 frequencies."""
    k = torch.arange(dim, dtype=torch.float32)
    wavelengths = upload(temperature ** (2 * (k // 2) / dim), angles.device)
    phases = angles[..., None] / wavelengths
    return torch.stack([phases[..., 0::2].sin(), phases[..., 1::2].cos()], dim=-1).flatten(-2)
