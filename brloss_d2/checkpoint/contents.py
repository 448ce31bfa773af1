"""Weights in the dictionary of a checkpoint: find them, check them, and tell them apart."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brloss_d2.checkpoint.files import read_checkpoint
from brloss_d2.errors import InputError
from brloss_d2.utils.text import first_few

# Keys of the weights in files of this package, mmdetection, Lightning, pycls, timm, DeepSpeed, ...
_KEYS = (
    *("model", "state_dict", "model_state_dict", "model_state", "state_dict_ema", "model_ema"),
    *("ema_state_dict", "ema", "module", "net", "network", "weights", "params"),
)
_DTYPES = [np.dtype(code) for code in "?bBhHiIlLqQefd"]
_MAX_DEPTH = 3  # of such keys; a pickled dictionary may contain itself
# Beginnings of the names of mmdetection's weights.
_MMDETECTION = ("bbox_head.", "roi_head.", "rpn_head.", "neck.", "backbone.layer1.")


def read_weights(file: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the content of a checkpoint, see `read_checkpoint`, and its weights by name.

    Raises:
        InputError: the file cannot be read, or it has no weights.
    """
    content = read_checkpoint(file)
    weights = find_weights(content)
    if weights:
        return content, weights
    if {"state", "param_groups"} <= content.keys() or {"optimizer"} & content.keys():
        what = "the state of an optimizer, but no weights"
    else:
        keys = first_few([f"{key} ({type(value).__name__})" for key, value in content.items()])
        what = f"no weights, but {keys or 'nothing'}"
    raise InputError(f"Cannot read checkpoint {file}: it holds {what}.")


def find_weights(content: Mapping[Any, Any], depth: int = _MAX_DEPTH) -> dict[str, Tensor]:
    """Return the tensors and arrays of a checkpoint by name; empty if there are none.

    Args:
        content: dictionary of the file: weights by name, or one of `_KEYS` with such a dictionary.
        depth: number of keys that may be nested.
    """
    for inner in map(content.get, _KEYS if depth else ()):
        if isinstance(inner, Mapping) and (found := find_weights(inner, depth - 1)):
            return found
    weights = {}
    for name, value in content.items():
        if isinstance(value, np.ndarray) and value.dtype in _DTYPES:
            # Read-only arrays are small: only an array without content can be larger than the file.
            value = torch.from_numpy(value if value.flags.writeable else value.copy())
        if isinstance(name, str) and isinstance(value, Tensor):
            weights[name] = value
    return weights


def without_wrapper(weights: Mapping[str, Tensor], known: Collection[str]) -> dict[str, Tensor]:
    """Drop what wrappers (DDP, `torch.compile`, Lightning) put in front of all names.

    Args:
        weights: weights by name.
        known: names to find; if none is found without the wrappers either, nothing is dropped.
    """
    names = {name: name for name in weights}
    while names and not names.keys() & known:
        wrapper = next(iter(names)).partition(".")[0] + "."
        if not all(name.startswith(wrapper) for name in names):
            return dict(weights)
        names = {name.removeprefix(wrapper): full for name, full in names.items()}
    return {name: weights[full] for name, full in names.items()}


def check_usable(file: str, weights: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> None:
    """Check that weights have values that a model can take.

    Args:
        file: path of the checkpoint, for the message.
        weights: weights by name.
        model: state dict of the model that takes them; names and shapes that differ from it are
            no matter of this function.

    Raises:
        InputError: weights are NaN or infinite, have no values, or are of another type.
    """
    problems = {}
    for name in weights.keys() & model.keys():
        weight, wanted = weights[name], model[name]
        is_float = weight.is_floating_point()
        same_shape = weight.shape == wanted.shape
        if weight.is_meta:
            problem = "has no values (meta device)"
        elif weight.layout is not torch.strided or weight.is_quantized:
            problem = "is sparse or quantized"
        elif weight.is_complex():
            problem = "has complex numbers"
        elif wanted.is_floating_point() and not is_float:
            problem = f"has {weight.dtype} instead of {wanted.dtype}".replace("torch.", "")
        elif is_float and same_shape and wanted.isfinite().all() and not weight.isfinite().all():
            problem = "has NaN or infinite values"  # which the model's own, a mask, may have
        else:
            continue
        problems[name] = problem
    if problems:
        name = next(name for name in weights if name in problems)
        raise InputError(
            f"Cannot use checkpoint {file}: {len(problems)} of {len(weights)} weights are "
            f"unusable, first {name}, which {problems[name]}. Use another checkpoint."
        )


def of_another_model(
    file: str, weights: Collection[str], parameters: Collection[str], lost: Sequence[str]
) -> InputError:
    """Return the error for a checkpoint that lacks parameters of the model.

    Args:
        file: path of the checkpoint.
        weights: names of its weights.
        parameters: names of the parameters of the model.
        lost: names of those that are absent from the file or of another shape.
    """
    if any(name.startswith(_MMDETECTION) for name in weights):
        return InputError(
            f"{file} is a checkpoint of mmdetection. Convert it first: brloss-convert {file} "
            "NEW_FILE, or python tools/convert_checkpoint.py in a clone."
        )
    names = ""
    if not set(weights) & set(parameters):
        theirs, ours = (first_few(sorted(n), count=2) for n in (weights, parameters))
        names = f"; its weights are named {theirs}, those of the model {ours}"
    return InputError(
        f"The checkpoint is of another model: {len(lost)} of {len(parameters)} parameters are "
        f"absent or of another shape in {file}, first {lost[0]}{names}. Use the config of its run "
        "(config.yaml next to it)."
    )


def find_non_finite(state: Any, *, except_for: Collection[str] = ()) -> list[str]:
    """Return the names of the tensors that hold NaN or infinite numbers, in nested dicts and lists.

    Args:
        state: state dict, or a checkpoint of several. The state of an optimizer is left out.
        except_for: names of tensors that may, such as a mask of negative infinity.
    """
    if isinstance(state, Mapping):
        items = [(str(name), part) for name, part in state.items() if name != "optimizer"]
    else:
        items = [(str(i), part) for i, part in enumerate(state)]
    found = []
    for name, part in items:
        if isinstance(part, Tensor):
            if part.is_floating_point() and name not in except_for and not part.isfinite().all():
                found.append(name)
        elif isinstance(part, Mapping | list | tuple):
            found += find_non_finite(part, except_for=except_for)
    return found


def fingerprint(weights: Mapping[str, Any]) -> str:
    """Return a text that differs between weights and is the same in memory and in a checkpoint.

    Args:
        weights: state dict of a model.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name]
        if isinstance(value, Tensor) and value.is_floating_point():
            digest.update(name.encode())
            digest.update(
                value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            )
    return digest.hexdigest()[:16]
