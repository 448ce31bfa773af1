"""Activation checkpointing: features are computed again in the backward pass, not kept."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from brloss_d2.modeling.backbone.layers import find_blocks


def checkpoint_activations(model: nn.Module) -> int:
    """Keep only the inputs of the blocks of a backbone for the backward pass, in place.

    Gradients and state dict stay as they are. Random numbers, as of stochastic depth, are the same
    the second time, and the second time does not count in the statistics of batch normalization.

    Args:
        model: detector with a `backbone`, see `find_blocks`.

    Returns:
        The number of blocks.

    Raises:
        InputError: no blocks are known in this backbone.
    """
    blocks = find_blocks(model)
    for module in model.modules():
        if getattr(module, "use_checkpoint", False):  # detectron2's Swin: once is enough
            module.use_checkpoint = False  # type: ignore[assignment]
    for block in blocks:
        block.forward = partial(_forward, block, block.forward)
    return len(blocks)


def _forward(block: nn.Module, forward: Any, *args: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _fixed_statistics(block)

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts)


@contextmanager
def _fixed_statistics(block: nn.Module) -> Iterator[None]:
    """Let batch normalization normalize as before, without an update of its statistics."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, deepcopy(norm.num_batches_tracked)
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
