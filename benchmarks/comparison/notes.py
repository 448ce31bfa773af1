"""What differs between the configs of several losses, in words."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

_OWN = ("optimizer.lr", "train.output_dir")  # told otherwise
_MEANING = {
    "model.head.has_quality": "a branch that predicts how good a box is, for its score",
    "model.box_transform.weights": "units of the encoded boxes",
    "model.proposal_generator.batch_size_per_image": "anchors sampled from an image",
    "model.roi_heads.batch_size_per_image": "proposals sampled from an image",
}


def notes(configs: Mapping[str, DictConfig]) -> list[str]:
    """What differs between the configs of the losses, in words."""
    rates = {loss: cfg.optimizer.lr for loss, cfg in configs.items()}
    if len(set(rates.values())) == 1:
        found = [
            f"learning rate {rates[next(iter(rates))]:g} for every loss, tuned for none: one rate "
            "may suit one loss better than another (`--lr LOSS=RATE`)"
        ]
    else:
        found = [f"learning rates: {_by_value(rates)}"]
    for key, values in differences(configs).items():
        if key not in _OWN:
            meaning = f" ({_MEANING[key]})" if key in _MEANING else ""
            found.append(f"`{key}`{meaning}: {_by_value(values)}")
    for loss, cfg in configs.items():
        for key, text in criteria_of(cfg).items():
            found.append(f"{loss}, `{key}`: `{text}`")
    return found


def _by_value(values: dict[str, object]) -> str:
    groups: dict[str, list[str]] = {}
    for loss, value in values.items():
        groups.setdefault(str(value), []).append(loss)
    return "; ".join(f"{value} for {', '.join(names)}" for value, names in groups.items())


def describe(node: Any) -> str:
    """A plain config node as the call it stands for: `GIoULoss()`."""
    if isinstance(node, dict) and "_target_" in node:
        target = node["_target_"]
        name = target.rpartition(".")[2] if isinstance(target, str) else target.__name__
        given = (f"{key}={describe(value)}" for key, value in node.items() if key != "_target_")
        return f"{name}({', '.join(given)})"
    return str(node)


def criteria_of(cfg: DictConfig) -> dict[str, str]:
    """Every criterion of a config in words, by its key."""
    return {
        key: describe(node)
        for key, node in walk(plain(cfg))
        if key.endswith(".criterion") and isinstance(node, dict)
    }


def differences(configs: Mapping[str, DictConfig]) -> dict[str, dict[str, str]]:
    """Keys in which configs differ -> name of the config -> value; without the criteria."""
    flat = {
        name: {key: describe(x) for key, x in walk(plain(cfg)) if not isinstance(x, dict | list)}
        for name, cfg in configs.items()
    }
    found = {}
    for key in dict.fromkeys(key for leaves in flat.values() for key in leaves):
        values = {name: leaves.get(key, "absent") for name, leaves in flat.items()}
        if len(set(values.values())) > 1 and "criterion" not in key.split("."):
            found[key] = values
    return found


def plain(cfg: DictConfig) -> Any:
    """A config as dicts and lists, interpolations as they are written."""
    return OmegaConf.to_container(cfg, resolve=False)


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything below a plain config node with its key."""
    children: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, list):
        children = enumerate(node)
    for key, child in children:
        below = f"{path}.{key}" if path else str(key)
        yield below, child
        yield from walk(child, below)
