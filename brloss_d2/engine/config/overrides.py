"""Overrides `key=value` of a config, refused when nothing would read the key."""

import inspect
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from detectron2.config import LazyConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from brloss_d2.errors import InputError
from brloss_d2.utils.config_nodes import target_of


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Change a config in place.

    `key=value` sets a key that exists, or an argument that the `_target_` beside it accepts;
    `+key=value` adds any key. Values are in hydra's override grammar.

    Raises:
        InputError: an override is malformed, or its key unknown; the message names close ones.
    """
    for text in overrides:
        override = _parse(text)
        if not override.is_add() and not override.is_force_add():
            _check_key(cfg, override.key_or_group)
        try:
            LazyConfig.apply_overrides(cfg, [text])
        except KeyError as error:  # +a.b=1 where a is a number
            raise InputError(f"Cannot apply {text!r}: {error.args[0]}") from error


def _parse(text: str) -> Override:
    key, equals, _ = text.partition("=")
    if not equals or not key.strip("+"):
        raise InputError(f"Cannot understand {text!r}: expected key=value.")
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
    return override


def _check_key(cfg: DictConfig, key: str) -> None:
    node: Any = cfg
    *parents, last = key.split(".")
    for depth, part in enumerate(parents):
        if not _has(node, part):
            raise _unknown(cfg, key)
        index = _index(node, part)
        if OmegaConf.is_interpolation(node, index):
            _refuse_interpolation(cfg, key, ".".join(parents[: depth + 1]))
        node = node[index]
    if not _has(node, last) and not _accepts(node, last):
        raise _unknown(cfg, key)


def _index(node: DictConfig | ListConfig, part: str) -> str | int:
    return int(part) if isinstance(node, ListConfig) else part


def _has(node: Any, part: str) -> bool:
    if isinstance(node, ListConfig):
        return part.isdigit() and int(part) < len(node)
    # keys(), since `in` is False for a value that is missing or refers to nothing.
    return isinstance(node, DictConfig) and part in node.keys()  # noqa: SIM118


def _refuse_interpolation(cfg: DictConfig, key: str, parent: str) -> None:
    """Writing below an interpolation would replace it by a dict with that one key."""
    source = OmegaConf.to_container(cfg, resolve=False)
    for part in parent.split("."):
        source = source[int(part) if isinstance(source, list) else part]
    raise InputError(f"Cannot set {key}: {parent} refers to {source}; set the key there.")


def _keywords(node: Any) -> list[inspect.Parameter]:
    """The parameters that the target of a node takes, those it hands to base classes included."""
    target = target_of(node)
    if not inspect.isclass(target):
        return _parameters(target)
    found: list[inspect.Parameter] = []
    for cls in target.__mro__:
        if cls in (nn.Module, object):
            return [p for p in found if p.kind is not p.VAR_KEYWORD]
        if "__init__" in vars(cls):
            own = _parameters(cls.__init__)[1:]  # without self
            found += own
            if not any(p.kind is p.VAR_KEYWORD for p in own):
                return [p for p in found if p.kind is not p.VAR_KEYWORD]
    return found


def _parameters(function: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values()) if function else []
    except (TypeError, ValueError):  # a builtin without a signature
        return []


def _accepts(node: Any, name: str) -> bool:
    return any(
        p.kind is p.VAR_KEYWORD
        or (p.name == name and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        for p in _keywords(node)
    )


def _unknown(cfg: DictConfig, key: str) -> InputError:
    known = sorted({k for k in _keys(cfg) if not k.endswith("._target_")})
    last = key.rpartition(".")[2]
    same_name = [k for k in known if k.rpartition(".")[2] == last]
    close = list(dict.fromkeys(same_name[:2] + get_close_matches(key, known, cutoff=0.8)))
    hint = f" Did you mean {' or '.join(close[:3])}?" if close else ""
    # Adding helps only inside the nodes that are passed on to somebody's code.
    closed = "." not in key or key.startswith("train.")
    add = "" if closed else f" To add it on purpose write +{key}=..."
    return InputError(f"There is no key {key} in the config.{hint}{add}")


def _keys(node: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every key below a node, and of every argument that could be one."""
    if isinstance(node, DictConfig):
        parts: list[str | int] = list(node.keys())
    elif isinstance(node, ListConfig):
        parts = list(range(len(node)))
    else:
        return
    yield from (f"{path}{p.name}" for p in _keywords(node) if p.kind is not p.VAR_KEYWORD)
    for part in parts:
        yield f"{path}{part}"
        if not (OmegaConf.is_interpolation(node, part) or OmegaConf.is_missing(node, part)):
            yield from _keys(node[part], f"{path}{part}.")
