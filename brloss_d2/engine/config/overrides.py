"""Overrides `key=value` of a config; a key that nothing would read is refused."""

import inspect
from collections.abc import Sequence
from typing import Any

from detectron2.config import LazyConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from brloss_d2.engine.config.short_keys import SHORT_KEYS
from brloss_d2.errors import InputError
from brloss_d2.utils.config_nodes import target_of, walk
from brloss_d2.utils.suggest import did_you_mean

# What a value is, what may replace it, and how to say that. A boolean is an int for Python.
_KINDS: tuple[tuple[Any, tuple[type, ...], str], ...] = (
    (bool, (bool,), "True or False"),
    (int | float, (float, ListConfig), "a number"),
    (str, (str,), "text"),
    (ListConfig | tuple, (float, ListConfig), "a list"),
    (DictConfig, (DictConfig,), "a group of keys"),
)


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Change a config in place.

    Args:
        cfg: config with the keys of `TOP_LEVEL_KEYS`.
        overrides: `key=value` for a key that exists or an argument that the `_target_` next to it
            accepts; `+key=value` for any key. Values are in hydra's override grammar; paths and
            other texts of `train` need no quotes.

    Raises:
        InputError: an override is malformed, or its key is unknown; the message names similar keys.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip("+"):
            raise InputError(f"Cannot understand {text!r}: expected key=value.")
        is_text = key.startswith("train.") and isinstance(OmegaConf.select(cfg, key), str)
        if is_text and not (value == "null" or value.startswith(("'", '"')) or "${" in value):
            OmegaConf.update(cfg, key, value)  # a path, in which no character has another meaning
            continue
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            raise InputError(
                f"Cannot understand {text!r}: {str(error).splitlines()[0]}. A value with spaces, "
                f"brackets, quotes or '=' needs quotes of its own: '{key}=\"...\"'."
            ) from error
        if override.is_sweep_override():
            raise InputError(f"{text!r} has several values: write a list as '{key}=[...]'.")
        if override.is_delete() or override.package is not None:
            raise InputError(f"Cannot understand {text!r}: expected key=value.")
        if not (override.is_add() or override.is_force_add()):
            _check_key(cfg, override.key_or_group)
        before = _value(cfg, override.key_or_group)
        try:
            LazyConfig.apply_overrides(cfg, [text])
        except (KeyError, OmegaConfBaseException) as error:  # +a.b=1 if a is a number
            cause = str(error.args[0]).splitlines()[0]
            raise InputError(f"Cannot apply {text!r}: {cause}") from error
        if not override.key_or_group.startswith("train."):  # whose types are known
            _check_kind(override.key_or_group, before, _value(cfg, override.key_or_group))


def _value(cfg: DictConfig, key: str) -> Any:
    """Return the value of a key, or its default as an argument; None if it has neither."""
    parent, _, last = key.rpartition(".")
    try:
        value, node = OmegaConf.select(cfg, key), OmegaConf.select(cfg, parent)
    except OmegaConfBaseException:  # it refers to nothing yet
        return None
    if value is None and isinstance(node, DictConfig) and last not in node:
        defaults = {p.name: p.default for p in _parameters(target_of(node))}
        return defaults.get(last)
    return value


def _check_kind(key: str, before: Any, value: Any) -> None:
    """Check that a value is replaced by one of its kind; null may replace anything."""
    for kinds, accepted, expected in _KINDS:
        if not isinstance(before, kinds):
            continue
        is_int = isinstance(value, int) and not isinstance(value, bool)
        fits = isinstance(value, accepted) or (is_int and float in accepted)
        # One dataset, or several.
        fits = fits or (key.endswith(".names") and isinstance(value, ListConfig))
        if value is not None and not fits:
            example = f", such as {before}" if len(str(before)) < 50 else ""
            raise InputError(f"{key} is {value!r}: expected {expected}{example}.")
        return


def _check_key(cfg: DictConfig, key: str) -> None:
    node: Any = cfg
    *parents, last = key.split(".")
    for depth, part in enumerate(parents, start=1):
        if not _has(node, part):
            raise _unknown(cfg, key)
        index = int(part) if isinstance(node, ListConfig) else part
        # Writing below an interpolation would replace it by a dict with that one key.
        if OmegaConf.is_interpolation(node, index):
            source: Any = OmegaConf.to_container(node)
            parent = ".".join(parents[:depth])
            raise InputError(
                f"Cannot set {key}: {parent} refers to {source[index]}; set the key there."
            )
        node = node[index]
    accepted = any(
        p.kind is p.VAR_KEYWORD
        or (p.name == last and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        for p in _parameters(target_of(node))
    )
    if not (accepted or _has(node, last)):
        raise _unknown(cfg, key)


def _has(node: Any, part: str) -> bool:
    if isinstance(node, ListConfig):
        return part.isdigit() and int(part) < len(node)
    # keys(), since `in` is False for a value that is missing or refers to nothing.
    return isinstance(node, DictConfig) and part in node.keys()  # noqa: SIM118


def _parameters(target: Any) -> list[inspect.Parameter]:
    """Return the parameters of a function or class, with those that go on to base classes."""
    if not inspect.isclass(target):
        try:
            return list(inspect.signature(target).parameters.values()) if target else []
        except (TypeError, ValueError):  # a builtin without a signature
            return []
    found: list[inspect.Parameter] = []
    for cls in target.__mro__:
        if cls in (nn.Module, object):
            break
        if "__init__" in vars(cls):
            own = _parameters(vars(cls)["__init__"])[1:]  # without self
            found += own
            if not any(p.kind is p.VAR_KEYWORD for p in own):
                break
    return [p for p in found if p.kind is not p.VAR_KEYWORD]


def _unknown(cfg: DictConfig, key: str) -> InputError:
    keys = {path for path, _ in walk(cfg) if not path.endswith("._target_")}
    arguments = {
        f"{path}.{p.name}"
        for path, node in walk(cfg)
        for p in _parameters(target_of(node))
        if p.kind is not p.VAR_KEYWORD
    }
    known = sorted(keys | arguments)
    last = key.rpartition(".")[2]
    same_name = [k for k in known if k.rpartition(".")[2] == last]
    hint = did_you_mean(key, [*known, *SHORT_KEYS], cutoff=0.8, first=same_name[:2])
    # Adding helps only inside the nodes that are passed on to other code.
    closed = "." not in key or key.startswith("train.")
    add = "" if closed else f" To add it on purpose write +{key}=..."
    return InputError(f"There is no key {key} in the config.{hint}{add}")
