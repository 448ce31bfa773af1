"""State dicts: numbers that are not finite, and a fingerprint of weights."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor


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
