"""Activation checkpointing: features are computed again in the backward pass, not kept."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from brloss_d2.modeling.backbone.batch_norm import paused_statistics
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
        return nullcontext(), paused_statistics(block)

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts)
