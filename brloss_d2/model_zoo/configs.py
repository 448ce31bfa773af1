"""Find config files: in a working copy where they lie, in an installed package beside this file."""

from difflib import get_close_matches
from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig

from brloss_d2.errors import InputError

_INSTALLED = Path(__file__).parent / "files"
_WORKING_COPY = Path(__file__).parents[2]
# Parts of configs, which are none themselves.
_COMMON = "common"


def root() -> Path:
    """The folder with `configs`, `projects` and `docs`; setup.py copies it as it lies here."""
    return _INSTALLED if _INSTALLED.is_dir() else _WORKING_COPY


def config_files() -> dict[str, Path]:
    """Name -> file of all configs, sorted by name.

    The name is the path below `configs` without its suffix, `coco/atss_R_50_FPN_rs_1x`; that of a
    project begins with the name of the project, `co_detr/...`.
    """
    folders = [("", root() / "configs")]
    for project in sorted((root() / "projects").glob("*/configs")):
        folders.append((f"{project.parent.name}/", project))
    found = {
        prefix + path.relative_to(folder).with_suffix("").as_posix(): path
        for prefix, folder in folders
        for path in folder.rglob("*.py")
        if _COMMON not in path.relative_to(folder).parts
    }
    return dict(sorted(found.items()))


def config_file(name: str) -> str:
    """Return the file of a config, for `--config-file`.

    Args:
        name: as in `list_configs()`; `.py` may follow.

    Raises:
        InputError: there is no such config; the message names close ones.
    """
    files = config_files()
    name = name.removesuffix(".py")
    if name not in files:
        same_leaf = [known for known in files if known.rpartition("/")[2] == name]
        close = same_leaf or get_close_matches(name, files, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise InputError(
            f"There is no config {name!r}.{hint} brloss_d2.model_zoo.list_configs() has all names."
        )
    return str(files[name])


def get_config(name: str) -> DictConfig:
    """Return the config of that name, loaded anew; change it as you like.

    Raises:
        InputError: there is no such config.
    """
    return LazyConfig.load(config_file(name))
