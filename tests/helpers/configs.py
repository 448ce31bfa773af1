"""Configs of the repository: loaded once, and built without weights."""

from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig
from torch import nn

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "configs", ROOT / "projects", ROOT / "tests" / "helpers")
_load = LazyConfig.load
_load_once = cache(_load)


def load(filename: str, keys: str | tuple[str, ...] | None = None) -> Any:
    """Do what `LazyConfig.load` does, and read a Python file of the repository only once.

    Most are loaded by ten tests or more. That takes a fifth of a second, and a copy a twentieth of
    it.
    """
    file = Path(filename).resolve()
    if file.suffix == ".py" and any(file.is_relative_to(folder) for folder in FOLDERS):
        return deepcopy(_load_once(str(file), keys))
    return _load(filename, keys)


def build_without_weights(model: DictConfig) -> nn.Module:
    """Build a model whose tensors have shapes but no values, in a fifth of the time."""
    # A Swin transformer reads its rates of stochastic depth from this tensor.
    linspace = partial(torch.linspace, device="cpu")
    with torch.device("meta"), patch("torch.linspace", linspace):
        return instantiate(model)
