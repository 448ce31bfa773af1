"""Keys of memory and speed, applied to a model before it is trained."""

import logging

import torch
from omegaconf import DictConfig
from torch import nn

from brloss_d2.engine.config.values import describe
from brloss_d2.engine.randomness import preserved_rng
from brloss_d2.errors import InputError
from brloss_d2.modeling.backbone.checkpointing import checkpoint_activations

logger = logging.getLogger(__name__)
_SIDE = 128  # of the images that a compiled backbone is tried on, in pixels


def apply_speed_keys(model: nn.Module, train: DictConfig) -> None:
    """Apply `activation_checkpointing`, `channels_last` and `compile` to a model, in place.

    Args:
        model: detector on its device; names in its state dict stay.
        train: node of the config with these keys.

    Raises:
        InputError: the backbone has no known blocks, or cannot be compiled.
    """
    if train.activation_checkpointing:
        count = checkpoint_activations(model)
        logger.info("Activation checkpointing: %d blocks of the backbone.", count)
    if train.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if train.compile:
        compile_backbone(model)


def compile_backbone(model: nn.Module) -> None:
    """Compile the backbone of a detector with its feature pyramid, for images of any size.

    Heads and losses are not compiled: the number of objects changes with each image.

    Args:
        model: detector with a `backbone`, changed in place. Its modules keep their classes, and the
            names in its state dict stay.

    Raises:
        InputError: it has no backbone, or a compiled one fails on random images.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise InputError(f"train.compile: {type(model).__name__} has no backbone to compile.")
    state = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone.compile(dynamic=True)
    logger.info("Compiling the backbone: the first iteration takes minutes.")
    try:
        with preserved_rng():
            images = torch.rand(2, 3, _SIDE, _SIDE, device=next(backbone.parameters()).device)
            total = sum(x.sum() for x in backbone.train()(images).values())
            if total.requires_grad:  # not all of it is frozen
                total.backward()
    except Exception as error:  # compilers raise almost anything
        cause = getattr(error, "inner_exception", error)
        raise InputError(
            f"train.compile: the backbone cannot be compiled, {describe(cause, located=False)} "
            "Leave train.compile out."
        ) from error
    for parameter in backbone.parameters():
        parameter.grad = None
    for name, value in backbone.named_buffers():
        value.copy_(state[name])
