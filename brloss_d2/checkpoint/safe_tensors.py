"""Weights as safetensors, a format that cannot hold code, https://github.com/huggingface/safetensors."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor

from brloss_d2.utils.files import replacing
from brloss_d2.utils.optional import import_optional

SUFFIX = ".safetensors"


def read_safetensors(file: str) -> dict[str, Any]:
    """Return the content of a file as that of a checkpoint: `model`, and `classes` if known.

    Args:
        file: path of the file.

    Raises:
        InputError: the package safetensors is missing.
        Exception: the file is damaged.
    """
    package = import_optional("safetensors", "hub")
    with package.safe_open(file, framework="pt") as opened:
        names = opened.keys()
        content: dict[str, Any] = {"model": {name: opened.get_tensor(name) for name in names}}
        about = opened.metadata() or {}
    with suppress(KeyError, ValueError):
        classes = json.loads(about["classes"])
        if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
            content["classes"] = classes
    return content


def write_safetensors(file: str, weights: Mapping[str, Tensor], classes: Sequence[str]) -> None:
    """Write or replace a file, complete or not at all.

    Args:
        file: path of the file.
        weights: weights by name.
        classes: names of the classes by label; none if unknown.

    Raises:
        InputError: the package safetensors is missing.
    """
    package = import_optional("safetensors.torch", "hub")
    about = {"format": "pt", **({"classes": json.dumps(list(classes))} if classes else {})}
    # Weights that share memory, as those of tied layers do, are not taken.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}
    with replacing(file) as temporary:
        package.save_file(tensors, temporary, metadata=about)
