"""Activations that are computed again in the backward pass instead of being stored."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def run(module: nn.Module, *inputs: Any, recompute: bool) -> Any:
    """Call a module; its activations may be computed again (Chen et al., 2016).

    Losses and gradients stay the same, random numbers included.

    Args:
        module: module to call.
        inputs: its arguments.
        recompute: whether the graph keeps the inputs alone, in training.
    """
    if recompute and module.training and torch.is_grad_enabled():
        return checkpoint(module, *inputs, use_reentrant=False)
    return module(*inputs)
