"""Load a config file, with own data and overrides from the command line, or say what is wrong."""

import os
from collections.abc import Sequence

import yaml
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from brloss_d2.data import CustomData, CustomDataSummary, apply_custom_data
from brloss_d2.engine.config.defaults import check_train_values, complete_train
from brloss_d2.engine.config.overrides import apply_overrides
from brloss_d2.errors import InputError
from brloss_d2.evaluation import CityscapesEvaluator, COCOEvaluator, LVISEvaluator
from brloss_d2.utils.config_nodes import target_of

TOP_LEVEL_KEYS = ("model", "optimizer", "lr_multiplier", "dataloader", "train")


def load_config(
    path: str, overrides: Sequence[str] = ()
) -> tuple[DictConfig, CustomDataSummary | None]:
    """Load a config file and apply what the command line adds to it. Writes nothing.

    Args:
        path: a LazyConfig file (.py), or the config.yaml that a run has left.
        overrides: `data.train=FILE.json` and the like, which are applied first, and `key=value`,
            see `apply_overrides`.

    Returns:
        The config, with exactly the keys of `TOP_LEVEL_KEYS` and every key of `train`; and what
        was found in the own data, None if there was none.

    Raises:
        InputError: the file is missing or no config, a key is unknown, or the own data is bad.
    """
    own_data, others = CustomData.from_overrides(overrides)
    cfg = _read(path)
    _complete(cfg, path)
    summary = None
    if own_data:
        summary = apply_custom_data(cfg, own_data)
        _evaluate_as_coco(cfg)
    apply_overrides(cfg, others)
    _complete(cfg, "after the overrides")
    _check_values(cfg)
    return cfg, summary


def _evaluate_as_coco(cfg: DictConfig) -> None:
    """Own data is in COCO format, which the evaluators of LVIS and Cityscapes do not read."""
    if target_of(cfg.dataloader.get("evaluator")) in (LVISEvaluator, CityscapesEvaluator):
        cfg.dataloader.evaluator = L(COCOEvaluator)(
            dataset_name="${..test.dataset.names}", output_dir="${train.output_dir}/inference"
        )


def _read(path: str) -> DictConfig:
    if not path:
        raise InputError("No config file given: expected --config-file FILE before any key=value.")
    if not os.path.isfile(path):
        raise InputError(f"Config file missing: {path}")
    if not path.endswith((".py", ".yaml", ".yml")):
        raise InputError(f"Config file {path}: expected a .py or .yaml file.")
    try:
        cfg = LazyConfig.load(path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"Config file {path} is no valid YAML: {error}") from error
    if not isinstance(cfg, DictConfig):
        raise InputError(f"Config file {path}: expected {_expected()}, found none.")
    return cfg


def _complete(cfg: DictConfig, where: str) -> None:
    missing = [key for key in TOP_LEVEL_KEYS if not isinstance(cfg.get(key), DictConfig)]
    if missing:
        raise InputError(f"Config ({where}): {missing[0]} is missing; expected {_expected()}.")
    extra = [str(key) for key in cfg if key not in TOP_LEVEL_KEYS]
    if extra:
        raise InputError(
            f"Config ({where}): {extra[0]} is not one of the keys; expected {_expected()}. In a "
            f"config file the name of a helper begins with an underscore."
        )
    cfg.train = complete_train(cfg.train)


def _check_values(cfg: DictConfig) -> None:
    try:
        check_train_values(cfg.train)
    except OmegaConfBaseException as error:  # an interpolation that refers to nothing
        raise InputError(f"Config: {error}") from error


def _expected() -> str:
    return f"the keys {', '.join(TOP_LEVEL_KEYS)}"
