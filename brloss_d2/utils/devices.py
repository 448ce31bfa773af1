"""Numbers that the host knows, on a device, without a wait for it."""

from functools import lru_cache

import torch
from torch import Tensor


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Return a tensor of a few fixed numbers, which is copied to each device once.

    Args:
        values: the numbers.
        like: tensor of the dtype and on the device of the result.

    Returns:
        (n,) tensor, shared: not to be changed in place.
    """
    return _constant(values, like.dtype, like.device)


@lru_cache(maxsize=256)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # One that inference made would be refused by autograd.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the CPU to a device; the host does not wait for a GPU."""
    pinned = values.pin_memory() if device.type == "cuda" else values
    return pinned.to(device, non_blocking=True)
