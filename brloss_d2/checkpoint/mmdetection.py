"""Weights of mmdetection's detectors under our names, and back.

Both sides hold the same tensors: colors in the order RGB, anchors and classes in the same order
with the background of a softmax last, region features flattened channel by channel, the
deconvolution of the mask head as (in, out, 2, 2), and the offsets of deformable convolutions as
(y, x) pairs, group by group, before all masks. So only names change, and no tensor is copied.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from brloss_d2.checkpoint.classifiers import RESNET, find_family
from brloss_d2.checkpoint.contents import check_usable, read_weights, without_wrapper
from brloss_d2.checkpoint.mmdetection_names import Pair, architectures
from brloss_d2.errors import InputError

_TRAINING_STATE = re.compile(r"(.+\.)?(num_batches_tracked|criterion\..+)")
_OWNER = re.compile(r"(.+?)(\.norm\.\w+|\.bias)")
_MAX_NAMES = 6  # in a message


@dataclass(frozen=True)
class Conversion:
    """Weights under new names.

    Attributes:
        architecture: key of `architectures()`.
        is_ours: whether the names are those of our models, rather than mmdetection's.
        weights: tensors by name.
        warnings: sentences about what the names do not tell.
    """

    architecture: str
    is_ours: bool
    weights: dict[str, Tensor]
    warnings: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name of the architecture in messages."""
        return architectures()[self.architecture].title or self.architecture

    def checkpoint(self) -> dict[str, Any]:
        """Return the content of a file for `Checkpointer`, or for mmdetection."""
        if self.is_ours:
            return {"model": self.weights}
        return {"meta": {}, "state_dict": self.weights}


def convert_file(file: str, architecture: str | None = None) -> Conversion:
    """Rename the weights of a checkpoint: published ones as ours, ours as mmdetection's.

    Args:
        file: path of a checkpoint of mmdetection, of a torchvision ResNet, or of this package.
            Its key `state_dict` or `model` holds the weights, or it is a state dict itself.
        architecture: key of `architectures()`; None recognizes it from the weights.

    Raises:
        InputError: the file cannot be read, or its weights are not exactly those of the
            architecture.
    """
    checkpoint, state = read_weights(file)
    marks = {mark for known in architectures().values() for mark in known.marks}
    state = without_wrapper(state, marks | RESNET.marks)
    # Whatever their shapes: their values are those of the user.
    check_usable(file, state, {name: value.new_empty(0) for name, value in state.items()})
    if find_family(state) is RESNET:
        state = {f"backbone.{name}": w for name, w in state.items() if not name.startswith("fc.")}
    architecture = architecture or recognize_architecture(state)
    published, ours = (set(names) for names in zip(*_table(state, architecture), strict=True))
    if len(state.keys() & ours) > len(state.keys() & published):
        return Conversion(architecture, False, to_mmdetection(state, architecture))
    weights = from_mmdetection(state, architecture)
    # Published checkpoints hold the text of their config, which tells what the weights do not.
    meta = checkpoint.get("meta")
    config = str(meta.get("config", "")) if isinstance(meta, dict) else ""
    warnings = []
    if "to_rgb=False" in config:
        warnings.append(
            "it was trained on BGR images: set model.input_format, pixel_mean and pixel_std"
        )
    if "style='caffe'" in config:
        warnings.append("its ResNet has the stride in the 1x1 convolutions: set stride_in_1x1=True")
    warnings += architectures()[architecture].warnings(weights)
    return Conversion(architecture, True, weights, tuple(warnings))


def from_mmdetection(state: Mapping[str, Tensor], architecture: str) -> dict[str, Tensor]:
    """Rename the weights of a published detector.

    Args:
        state: state dict of mmdetection; counters of batch normalization are dropped.
        architecture: key of `architectures()`.

    Returns:
        The same tensors under the names of our models.

    Raises:
        InputError: a weight of the architecture is missing, a weight is left over, or the shapes
            of two weights contradict each other.
    """
    renamed = _renamed(state, dict(_table(state, architecture)), architecture)
    _check_shapes(renamed)
    return renamed


def to_mmdetection(state: Mapping[str, Tensor], architecture: str) -> dict[str, Tensor]:
    """Rename the weights of one of our detectors; the inverse of `from_mmdetection`.

    The state of losses (`EpochSelfBalancer`) is dropped as well.

    Raises:
        InputError: as `from_mmdetection`.
    """
    names = {ours: published for published, ours in _table(state, architecture)}
    renamed = _renamed(state, names, architecture)
    _check_shapes({name: state[name] for name in names})
    return renamed


def recognize_architecture(state: Mapping[str, object]) -> str:
    """Recognize an architecture from the names of a state dict, published or ours.

    ATSS and PAA have the same weights: both are "atss". RetinaNet and FoveaBox have the same
    weights under our names: both are "retinanet". A backbone alone is "resnet".

    Raises:
        InputError: the weights are of none of the `architectures()`.
    """
    known = architectures()
    for architecture in reversed(known.values()):
        if state.keys() & set(architecture.marks):
            return architecture.name
    if all(name.startswith("backbone.") for name in state):
        return "resnet"
    heads = [name for name in state if not name.startswith(("backbone.", "neck."))]
    raise InputError(
        f"These weights are of none of the architectures {', '.join(known)}: in addition to "
        f"backbone and neck there are {listed(heads)}."
    )


def check_fit(weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Check that a model has exactly these weights.

    Args:
        weights: tensors under our names.
        model: detector whose names and shapes are compared.

    Raises:
        InputError: a weight is missing, left over or of another shape.
    """
    state = _without_training_state(model.state_dict())
    missing = [name for name in state if name not in weights]
    unknown = [name for name in weights if name not in state]
    other = [
        f"{name} {tuple(weight.shape)} instead of {tuple(state[name].shape)}"
        for name, weight in weights.items()
        if name in state and weight.shape != state[name].shape
    ]
    if missing or unknown or other:
        raise InputError(
            f"These weights do not fit the model of the config: missing {listed(missing)}; left "
            f"over {listed(unknown)}; of another shape {listed(other)}."
        )


def listed(names: Iterable[str]) -> str:
    """Return the first of many names for a message; "none" if there are none."""
    names = list(names)
    if not names:
        return "none"
    rest = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _table(state: Iterable[str], architecture: str) -> list[Pair]:
    known = architectures()
    if architecture not in known:
        raise InputError(
            f"There is no architecture {architecture!r}; known ones: {', '.join(known)}."
        )
    return list(known[architecture].table(list(state)))


def _renamed(
    state: Mapping[str, Tensor], names: Mapping[str, str], architecture: str
) -> dict[str, Tensor]:
    weights = _without_training_state(state)
    missing = [name for name in names if name not in weights]
    unknown = [name for name in weights if name not in names]
    if missing or unknown:
        raise InputError(
            f"These are not the weights of {architecture}: {len(missing)} missing "
            f"({listed(missing)}), {len(unknown)} left over ({listed(unknown)})."
        )
    return {new: weights[old] for old, new in names.items()}


def _without_training_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out counters of batch normalization and the state of losses."""
    return {name: weight for name, weight in state.items() if not _TRAINING_STATE.fullmatch(name)}


def _check_shapes(ours: Mapping[str, Tensor]) -> None:
    """Compare biases and normalizations with the convolutions that they belong to."""
    for name, tensor in ours.items():
        match = _OWNER.fullmatch(name)
        weight = ours.get(f"{match[1]}.weight") if match else None
        if match is None or weight is None:  # a normalization may follow no convolution
            continue
        channels = weight.shape[1 if match[1].endswith(".deconv") else 0]
        if tensor.shape != (channels,):
            raise InputError(
                f"{name} has the shape {tuple(tensor.shape)}, but {match[1]}.weight "
                f"{tuple(weight.shape)} asks for ({channels},)."
            )
