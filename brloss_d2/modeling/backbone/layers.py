"""Layers and blocks of a backbone, by the names of its parts."""

import re

from torch import nn

from brloss_d2.errors import InputError

# Where the network of a backbone is: below a feature pyramid, in a backbone of a library.
_NETWORKS = ("bottom_up", "net", "body")
_LAYER = re.compile(
    r"(model\.)?(layers\.\d+\.)?blocks\.\d+\."  # Swin, ViT, timm's ViT and MobileNets
    r"|(res|layer|level|stages?_?|s)\d+\."  # ResNet, timm's ResNets, ConvNeXts and RegNets
    r"|features[._](\d+|denseblock\d+|transition\d+)\."  # torchvision, DenseNets
    r"|trunk_output\.block\d+\."  # torchvision's RegNets
)

_STEM = ""


def find_network(model: nn.Module) -> tuple[str, nn.Module]:
    """Return the network of a detector's backbone without its feature pyramid, and its name.

    Args:
        model: detector with a `backbone`.

    Raises:
        InputError: the model has no backbone.
    """
    name, network = "backbone", getattr(model, "backbone", None)
    if network is None:
        raise InputError(f"{type(model).__name__} has no backbone.")
    while inner := [x for x in _NETWORKS if isinstance(getattr(network, x, None), nn.Module)]:
        name, network = f"{name}.{inner[0]}", getattr(network, inner[0])
    return name, network


def layer_decay_factors(model: nn.Module, decay: float) -> dict[str, float]:
    """Return factors of the learning rate that fall from the head to the image (layer decay).

    Layer l of L layers has the factor decay^(L - l), as in detectron2's `get_vit_lr_decay_rate`
    and mmdetection's `LearningRateDecayOptimizerConstructor`: the stem, with embeddings, is layer
    0, and the last block is layer L - 1. A layer is a stage of a ResNet, a block of a transformer,
    a block or stage of a classifier of torchvision or timm. What merges patches between the stages
    of a Swin transformer belongs to the block before it. Feature pyramid, heads, norms of output
    maps and residual convolutions of ViTDet, which start from scratch, are layer L.

    Args:
        model: detector with a `backbone`.
        decay: factor from one layer to the next, in (0, 1].

    Returns:
        Parameter name -> factor, of the parameters in the layers below L.

    Raises:
        InputError: the decay is out of range, or no layers are known in this backbone.
    """
    if not 0 < decay <= 1:
        raise InputError(f"layer_decay is {decay}: expected a number above 0, at most 1.")
    prefix, network = find_network(model)
    layers: list[str] = []  # what the names of each begin with
    numbers: dict[str, int] = {}
    for name, _ in network.named_parameters():
        if found := _LAYER.match(name):
            start = found[0]
        elif layers in ([], [_STEM]):
            start = _STEM
        elif name.startswith("layers."):  # between the stages of a Swin transformer
            start = layers[-1]
        else:
            continue
        if start not in layers:
            layers.append(start)
        if ".residual." not in name:
            numbers[f"{prefix}.{name}"] = layers.index(start)
    if layers in ([], [_STEM]):
        raise InputError(f"layer_decay: no layers are known in {type(network).__name__}.")
    return {name: decay ** (len(layers) - layer) for name, layer in numbers.items()}


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of a detector's backbone: its layers, or the blocks that a layer chains.

    Args:
        model: detector with a `backbone`.

    Raises:
        InputError: no layers are known in this backbone.
    """
    _, network = find_network(model)
    blocks: list[nn.Module] = []
    for name, layer in network.named_modules():
        if _LAYER.fullmatch(f"{name}."):
            parts = list(layer.children())
            is_chain = isinstance(layer, nn.Sequential) and all(
                [*part.children()] for part in parts
            )
            blocks += parts if is_chain else [layer]
    if not blocks:
        raise InputError(f"No blocks are known in the backbone {type(network).__name__}.")
    return blocks
