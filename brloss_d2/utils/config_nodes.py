"""Reading the nodes of a LazyConfig, and overrides of its keys."""

from collections.abc import Iterator
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf

from brloss_d2.errors import InputError
from brloss_d2.utils.suggest import did_you_mean


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of every key below a config node, outer ones first.

    The value of an interpolation, which is not followed, and of a missing key is None.

    Args:
        node: node of a config; anything but a dict or list node yields nothing.
        path: beginning of the paths.
    """
    if isinstance(node, DictConfig | ListConfig):
        for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
            refers = OmegaConf.is_interpolation(node, key)
            value = None if refers or OmegaConf.is_missing(node, key) else node[key]
            yield f"{path}{key}", value
            yield from walk(value, f"{path}{key}.")


def walk_nodes(node: Any) -> Iterator[DictConfig]:
    """Yield every dict below a config node, itself included, without following interpolations.

    Args:
        node: node of a config; anything but a dict or list node yields nothing.
    """
    for value in (node, *(value for _, value in walk(node))):
        if isinstance(value, DictConfig):
            yield value


def key_of(override: str) -> str:
    """Return the key of an override, `key=value` or `+key=value`."""
    return override.lstrip("+").partition("=")[0]


def dataset_of(cfg: DictConfig, split: str) -> DictConfig:
    """Return the node of a dataset; an empty one if there is none, or if it is no node.

    Args:
        cfg: config with the key `dataloader`.
        split: "train" or "test".
    """
    node = OmegaConf.select(cfg, f"dataloader.{split}.dataset")
    return node if isinstance(node, DictConfig) else OmegaConf.create()


def names_of(dataset: DictConfig) -> list[str]:
    """Return the names in the node of a dataset, which may have one, several or none."""
    names = dataset.get("names") or []
    return [names] if isinstance(names, str) else list(names)


def learns_masks(cfg: DictConfig) -> bool:
    """Return whether the training of a config reads the masks of objects."""
    return bool(OmegaConf.select(cfg, "dataloader.train.mapper.use_instance_mask"))


def target_of(node: Any) -> Any:
    """Return the class or function that a node calls; None if the node calls nothing.

    Args:
        node: node of a config, or any other value.

    Raises:
        InputError: the node names something that does not exist.
    """
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    if not isinstance(target, str):
        return target
    found = located(target)
    if found is None:
        module, _, name = target.rpartition(".")
        hint = did_you_mean(name, dir(located(module)), count=1, prefix=f"{module}.")
        raise InputError(f"_target_={target}: Python finds no such class or function.{hint}")
    return found


def located(name: str) -> Any:
    """Return the class, function or module of a full name; None if Python cannot find it."""
    try:
        return locate(name)
    except Exception:  # of hydra, or of the module that is imported
        return None
