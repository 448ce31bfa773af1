"""Reading the nodes of a LazyConfig."""

from collections.abc import Iterator
from typing import Any

from detectron2.utils.registry import locate
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


def target_of(node: Any) -> Any:
    """Return the class or function that a node calls; None if the node calls nothing.

    Args:
        node: node of a config, or any other value.
    """
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    return locate(target) if isinstance(target, str) else target
