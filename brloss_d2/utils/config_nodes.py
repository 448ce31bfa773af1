"""Walks over the nodes of a LazyConfig."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf


def walk_nodes(node: Any) -> Iterator[DictConfig]:
    """Yield every dict below a config node, itself included, without following interpolations.

    Args:
        node: node of a config; anything but a dict or list node yields nothing.
    """
    if isinstance(node, DictConfig):
        yield node
    if isinstance(node, DictConfig | ListConfig):
        for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
            if not (OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key)):
                yield from walk_nodes(node[key])
