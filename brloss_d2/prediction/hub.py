"""Models shared as a folder: on disk, or in a repository of the Hugging Face Hub."""

import os
from collections.abc import Iterator
from typing import Any

import yaml
from detectron2.utils.registry import locate

from brloss_d2.errors import InputError
from brloss_d2.utils.optional import import_optional
from brloss_d2.utils.text import printable

PREFIX = "hf://"
CONFIG_FILE = "config.yaml"
# In the order in which they are looked for.
WEIGHTS_FILES = ("model.safetensors", "model_final.pth", "model_best.pth")
_WANTED = (CONFIG_FILE, *WEIGHTS_FILES, "categories.json", "calibration.json")
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool")}
_PLAIN |= {"tag:yaml.org,2002:null", "tag:yaml.org,2002:python/tuple"}
_NAME = "tag:yaml.org,2002:python/name:"
_HARMLESS = {"collections.OrderedDict"}
_PACKAGES = ("brloss_d2.", "detectron2.", "fvcore.", "torch.")
# Modules whose objects the config of a stranger may call: parts of detectors, not programs.
_PARTS = (
    *("brloss_d2.losses.", "brloss_d2.criteria.", "brloss_d2.modeling.", "brloss_d2.evaluation."),
    *("brloss_d2.data.augmentation.", "brloss_d2.data.coco.", "brloss_d2.data.mapper."),
    *("brloss_d2.engine.optimizer.", "brloss_d2.projects."),
    *("detectron2.modeling.", "detectron2.layers.", "detectron2.solver.", "detectron2.data.build."),
    *("detectron2.data.transforms.", "detectron2.data.samplers."),
    *("torch.nn.", "torch.optim.", "fvcore.common.param_scheduler.", "fvcore.transforms."),
)


def is_shared(config: object) -> bool:
    """Say whether a config is a folder with its weights, or the name of a repository."""
    is_path = isinstance(config, str | os.PathLike)
    return is_path and (str(config).startswith(PREFIX) or os.path.isdir(config))  # type: ignore[arg-type]


def find_shared(source: str) -> tuple[str, str]:
    """Return the files of config and weights of a shared model, downloaded if necessary.

    The config of a repository may only name parts of detectors, and is not read otherwise.

    Args:
        source: folder, or `hf://OWNER/NAME`, possibly with `@REVISION`.

    Raises:
        InputError: there is no such folder or repository, a file is missing, the config names other
            things, or the package huggingface_hub is missing.
    """
    folder = _download(source) if source.startswith(PREFIX) else source
    config = os.path.join(folder, CONFIG_FILE)
    weights = [path for name in WEIGHTS_FILES if os.path.isfile(path := os.path.join(folder, name))]
    if not os.path.isfile(config) or not weights:
        raise InputError(
            f"{printable(source)} is no shared model: expected {CONFIG_FILE} and one of "
            f"{', '.join(WEIGHTS_FILES)} in it, as brloss-share writes them."
        )
    if source.startswith(PREFIX):
        check_parts_only(config, source)
    return config, weights[0]


def check_parts_only(file: str, source: str) -> None:
    """Check that a config calls nothing but parts of detectors, without reading it as a config.

    Args:
        file: `config.yaml` of a run.
        source: name of its source, for the message.

    Raises:
        InputError: it is no YAML, or names something else, which could be any program.
    """
    try:
        with open(file, encoding="utf-8") as opened:
            names = list(_called(yaml.compose(opened, Loader=yaml.SafeLoader)))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"The config of {printable(source)} cannot be read: {error}") from error
    for name in [name for name in names if name not in _HARMLESS]:
        # The package, so that nothing else is imported; and the origin: a.os.system is not of a.
        try:
            found = locate(name) if name.startswith(_PACKAGES) else None
        except Exception:  # importing may raise anything
            found = None
        if not f"{getattr(found, '__module__', '')}.".startswith(_PARTS):
            raise InputError(
                f"The config of {printable(source)} calls {printable(name)}, which is no part of a "
                "detector that is known here. If you trust its author, download the files and name "
                "config and weights."
            )


def _called(node: Any) -> Iterator[str]:
    """Yield the names that a YAML document refers to; those of unknown tags as they are."""
    seen, nodes = set(), [node]
    while nodes:
        node = nodes.pop()
        if node is None or id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if node.tag.startswith(_NAME):
            yield node.tag.removeprefix(_NAME)
        elif node.tag not in _PLAIN:
            yield node.tag
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                nodes += [key, value]
                if key.value == "_target_":
                    yield str(value.value)
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value


def _download(source: str) -> str:
    hub = import_optional("huggingface_hub", "hub")
    name, _, revision = source.removeprefix(PREFIX).partition("@")
    if name.count("/") != 1:
        raise InputError(f"{printable(source)} is no repository: expected {PREFIX}OWNER/NAME.")
    try:
        return hub.snapshot_download(name, revision=revision or None, allow_patterns=list(_WANTED))
    except Exception as error:  # of the network, of the server, of the name
        reason = printable(str(error).strip().split("\n")[0], length=200)
        raise InputError(f"Cannot download {printable(source)}: {reason}") from error
