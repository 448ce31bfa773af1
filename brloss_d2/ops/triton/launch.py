"""Checks of whether Triton kernels can run."""

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor


@cache
def has_triton() -> bool:
    """Return whether Triton is installed, without importing it."""
    return find_spec("triton") is not None


def check_triton(device: torch.device) -> None:
    """Check that Triton kernels can run on `device`.

    Raises:
        RuntimeError: If they cannot.
    """
    if not has_triton():
        raise RuntimeError(
            'backend "triton" was requested, but triton is not installed: '
            'pip install triton, or ask for "auto" or "torch"'
        )
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(
            f'backend "triton" was requested, but the tensors are on "{device}": move them to a '
            'GPU, or ask for "auto" or "torch" (TRITON_INTERPRET=1 emulates kernels on a CPU)'
        )


def current_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Make the GPU of `tensor` the current one, on which Triton launches its kernels."""
    if tensor.device.type == "cpu":
        return nullcontext()
    return getattr(torch, tensor.device.type).device(tensor.device)
