"""Convert checkpoint files between mmdetection, torchvision and this package."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from brloss_d2.checkpoint.files import read_checkpoint
from brloss_d2.checkpoint.mmdetection import (
    from_mmdetection,
    listed,
    recognize_architecture,
    to_mmdetection,
    without_training_state,
)
from brloss_d2.checkpoint.torchvision_resnet import is_torchvision_resnet
from brloss_d2.errors import InputError

_OURS = ("backbone.bottom_up.", "query_head.content.")  # names that no published weight has


@dataclass(frozen=True)
class Conversion:
    """Weights under other names.

    Attributes:
        architecture: one of `mmdetection.ARCHITECTURES`.
        is_ours: whether the names are those of our models, rather than mmdetection's.
        weights: the tensors of the file.
        warnings: sentences about what the names do not tell.
    """

    architecture: str
    is_ours: bool
    weights: dict[str, Tensor]
    warnings: tuple[str, ...] = ()

    def checkpoint(self) -> dict[str, Any]:
        """What to save: `Checkpointer`, or mmdetection, loads it."""
        if self.is_ours:
            return {"model": self.weights}
        return {"meta": {}, "state_dict": self.weights}


def convert_file(file: str, architecture: str | None = None) -> Conversion:
    """Read a checkpoint of mmdetection or of a torchvision ResNet for our models, or one of ours
    for mmdetection.

    Args:
        file: its keys `state_dict` or `model` hold the weights, or it is a state dict itself.
        architecture: one of `mmdetection.ARCHITECTURES`; None recognizes it by the weights.

    Raises:
        InputError: the file cannot be read, or does not have exactly the weights of the
            architecture.
    """
    checkpoint = read_checkpoint(file)
    state = _weights(checkpoint, file)
    if is_torchvision_resnet(state):
        body = {name: w for name, w in state.items() if not name.startswith("fc.")}
        state = {f"backbone.{name}": weight for name, weight in body.items()}
    architecture = architecture or recognize_architecture(state)
    if any(name.startswith(_OURS) for name in state):
        return Conversion(architecture, False, to_mmdetection(state, architecture))
    weights = from_mmdetection(state, architecture)
    warnings = (*_warnings(checkpoint.get("meta")), *_head_bias_warning(weights))
    return Conversion(architecture, True, weights, warnings)


def check_fit(weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Check that a model has exactly these weights.

    Args:
        weights: under our names.
        model: names and shapes are compared, values are neither read nor written.

    Raises:
        InputError: a weight is missing, left over or of another shape.
    """
    state = without_training_state(model.state_dict())
    missing = [name for name in state if name not in weights]
    unknown = [name for name in weights if name not in state]
    other = [
        f"{name} {tuple(weight.shape)} instead of {tuple(state[name].shape)}"
        for name, weight in weights.items()
        if name in state and weight.shape != state[name].shape
    ]
    if missing or unknown or other:
        raise InputError(
            "These weights do not fit the model of the config: "
            f"missing {listed(missing)}; left over {listed(unknown)}; of another shape "
            f"{listed(other)}."
        )


def _weights(checkpoint: Mapping[str, Any], file: str) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
    others = [str(name) for name, value in checkpoint.items() if not isinstance(value, Tensor)]
    if others or not checkpoint:
        raise InputError(f"{file} holds no state dict: no tensors are {listed(others)}.")
    return dict(checkpoint)


def _warnings(meta: Any) -> tuple[str, ...]:
    """What a published config, kept as text in its checkpoint, says against our models."""
    config = str(meta.get("config", "")) if isinstance(meta, dict) else ""
    found = []
    if "to_rgb=False" in config:
        found.append(
            "it was trained on BGR images: set model.input_format, pixel_mean and pixel_std"
        )
    if "style='caffe'" in config:
        found.append("its ResNet has the stride in the 1x1 convolutions: set stride_in_1x1=True")
    return tuple(found)


def _head_bias_warning(weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Published Co-DETRs embed a head in one number, through a mistake, or in one per channel."""
    bias = weights.get("query_head.custom.head_bias")
    if bias is None or bias.shape[1] == 1:
        return ()
    return (f"it embeds its heads: set model.query_head.head_bias_dim={bias.shape[1]}",)
