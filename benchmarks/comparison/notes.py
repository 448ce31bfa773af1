"""Differences between the configs of several losses, in words."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from brloss_d2.criteria import Criterion

# Keys that the notes mention elsewhere or that say nothing.
_SKIPPED = ("optimizer.lr", "train.output_dir")
_MEANING = {
    "model.head.has_quality": "a branch that predicts how good a box is, for its score",
    "model.head.has_background": "a class for the background",
    "model.head.prior_prob": "scores at the start",
    "model.box_transform.weights": "units of the encoded boxes",
    "model.proposal_generator.batch_size_per_image": "anchors sampled from an image",
    "model.roi_heads.batch_size_per_image": "proposals sampled from an image",
    "model.query_losses.weight": "factor of all losses of queries",
    "model.query_losses.matcher.cls_weight": "weight of the class in the matching of queries",
    "model.query_losses.matcher.position_power": "how much boxes lower scores in that matching",
}


def notes(configs: Mapping[str, DictConfig], factors: Sequence[float] = (1,)) -> list[str]:
    """Describe the differences between configs, by the name of the loss, one line each.

    Args:
        configs: configs by the name of the loss.
        factors: factors of the learning rate that each loss is trained with.
    """
    rates = {loss: cfg.optimizer.lr for loss, cfg in configs.items()}
    if len(factors) > 1:
        tried = ", ".join(f"{factor:g}" for factor in factors)
        found = [f"learning rates: the best of {tried} times {_by_value(rates)}"]
    elif len(set(rates.values())) == 1:
        found = [
            f"learning rate {rates[next(iter(rates))]:g} for every loss, tuned for none: one rate "
            "may suit one loss better than another (`--lr LOSS=RATE`)"
        ]
    else:
        found = [f"learning rates: {_by_value(rates)}"]
    for key, values in differences(configs).items():
        if key not in _SKIPPED:
            meaning = f" ({_MEANING[key]})" if key in _MEANING else ""
            found.append(f"`{key}`{meaning}: {_by_value(values)}")
    for loss, cfg in configs.items():
        found += [f"{loss}, `{key}`: `{text}`" for key, text in criteria_of(cfg).items()]
    return found


def _by_value(values: Mapping[str, object]) -> str:
    """List each value with the names that have it."""
    groups: dict[str, list[str]] = {}
    for loss, value in values.items():
        groups.setdefault(str(value), []).append(loss)
    return "; ".join(f"{value} for {', '.join(names)}" for value, names in groups.items())


def describe(node: Any) -> str:
    """Write a plain config node as the call that it stands for, such as `GIoULoss()`."""
    if isinstance(node, dict) and "_target_" in node:
        target = node["_target_"]
        name = target.rpartition(".")[2] if isinstance(target, str) else target.__name__
        given = (f"{key}={describe(value)}" for key, value in node.items() if key != "_target_")
        return f"{name}({', '.join(given)})"
    return str(node)


def criteria_of(cfg: DictConfig) -> dict[str, str]:
    """Describe the criteria of a config, by key."""
    return {key: describe(node) for key, node in walk(plain(cfg)) if _is_criterion(node)}


def _is_criterion(node: Any) -> bool:
    target = node.get("_target_") if isinstance(node, dict) else None
    target = locate(target) if isinstance(target, str) else target
    return isinstance(target, type) and issubclass(target, Criterion)


def differences(configs: Mapping[str, DictConfig]) -> dict[str, dict[str, str]]:
    """Find the keys in which configs differ, except inside of criteria.

    Args:
        configs: configs by name.

    Returns:
        For each such key, the values by name of the config.
    """
    flat = {
        name: {key: describe(x) for key, x in walk(plain(cfg)) if not isinstance(x, dict | list)}
        for name, cfg in configs.items()
    }
    inside = tuple(f"{key}." for cfg in configs.values() for key in criteria_of(cfg))
    found = {}
    for key in dict.fromkeys(key for leaves in flat.values() for key in leaves):
        values = {name: leaves.get(key, "absent") for name, leaves in flat.items()}
        if len(set(values.values())) > 1 and not key.startswith(inside):
            found[key] = values
    return found


def plain(cfg: DictConfig) -> Any:
    """Convert a config to dicts and lists, without resolving interpolations."""
    return OmegaConf.to_container(cfg, resolve=False)


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and value of everything below a plain config node."""
    children: Iterable[tuple[Any, Any]] = node.items() if isinstance(node, dict) else ()
    if isinstance(node, list):
        children = enumerate(node)
    for key, child in children:
        below = f"{path}.{key}" if path else str(key)
        yield below, child
        yield from walk(child, below)
