"""Packaged configs and criteria by name, in a working copy or in an installed package."""

from copy import deepcopy
from functools import cache
from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig

from brloss_d2.errors import InputError
from brloss_d2.utils.suggest import did_you_mean

_INSTALLED = Path(__file__).parent / "files"
_WORKING_COPY = Path(__file__).parents[2]
# Folders of shared parts, which are no configs themselves.
_COMMON = "common"


def root() -> Path:
    """Return the folder that holds `configs` and `projects`; setup.py copies both as they are."""
    return _INSTALLED if _INSTALLED.is_dir() else _WORKING_COPY


def config_folders() -> dict[str, Path]:
    """Return the folders of the configs by the prefix of their names: "" and one per project."""
    projects = sorted((root() / "projects").glob("*/configs"))
    return {"": root() / "configs", **{f"{path.parent.name}/": path for path in projects}}


def config_files() -> dict[str, Path]:
    """Return the files of all configs by name, sorted.

    A name is the path below `configs` without its suffix, `coco/atss_R_50_FPN_rs_1x`. The names of
    a project start with the name of the project and a slash.
    """
    found = {
        prefix + path.relative_to(folder).with_suffix("").as_posix(): path
        for prefix, folder in config_folders().items()
        for path in folder.rglob("*.py")
        if _COMMON not in path.relative_to(folder).parts
    }
    return dict(sorted(found.items()))


def config_file(name: str) -> str:
    """Return the path of a config file.

    Args:
        name: name of the config as in `list_configs()`, with or without `.py`.

    Raises:
        InputError: there is no such config; the message names similar ones.

    Example:
        >>> from brloss_d2 import model_zoo
        >>> model_zoo.config_file("quick/atss_R_18_FPN_brs_300it")
        '.../configs/quick/atss_R_18_FPN_brs_300it.py'
    """
    files = config_files()
    name = name.removesuffix(".py")
    if name not in files:
        same_leaf = [known for known in files if known.rpartition("/")[2] == name]
        hint = did_you_mean(name, () if same_leaf else files, cutoff=0.5, first=same_leaf)
        raise InputError(f"There is no config {name!r}.{hint} brloss-configs lists all names.")
    return str(files[name])


def get_config(name: str) -> DictConfig:
    """Return a config, which may be changed: it is loaded again by each call.

    Args:
        name: name of the config as in `list_configs()`, with or without `.py`.

    Raises:
        InputError: there is no such config.

    Example:
        >>> from brloss_d2 import model_zoo
        >>> cfg = model_zoo.get_config("coco/atss_R_50_FPN_brs_1x")
        >>> cfg.optimizer.lr, cfg.train.max_iter
        (0.008, 87960)
    """
    return LazyConfig.load(config_file(name))


def list_criteria(site: str | None = None) -> list[str]:
    """Return the names of the criteria, which are the loss names of the configs.

    Args:
        site: site that the criteria have to train, "rpn", "roi", "mask", or a one-stage detector
            such as "atss"; None for all names. `configs/common/criteria.py` explains the sites.

    Raises:
        InputError: no criterion trains such a site.

    Example:
        >>> from brloss_d2 import model_zoo
        >>> "rs" in model_zoo.list_criteria("rpn"), "focal" in model_zoo.list_criteria("rpn")
        (True, False)
    """
    nodes = _criteria(root() / "configs" / _COMMON / "criteria.py")
    names = [str(name) for name, sites in nodes.items() if site is None or site in sites]
    if not names:
        known = sorted({site for sites in nodes.values() for site in sites})
        raise InputError(f"There is no site {site!r}: expected one of {', '.join(known)}.")
    return names


def get_criterion(name: str, site: str) -> DictConfig:
    """Return the node of a criterion, for `detectron2.config.instantiate`.

    Args:
        name: name of the criterion as in `list_criteria(site)`.
        site: site that the criterion trains, as in `list_criteria`.

    Raises:
        InputError: there is no such site, or no such criterion for it.

    Example:
        >>> from detectron2.config import instantiate
        >>> from brloss_d2 import model_zoo
        >>> instantiate(model_zoo.get_criterion("brs", "atss")).cls_loss
        BucketedRankSortLoss(delta=0.5)
    """
    known = list_criteria(site)
    if name not in known:
        raise InputError(
            f"There is no criterion {name!r} for {site!r}: expected one of {', '.join(known)}."
        )
    return deepcopy(_criteria(root() / "configs" / _COMMON / "criteria.py")[name][site])


@cache
def _criteria(path: Path) -> DictConfig:
    return LazyConfig.load(str(path))
