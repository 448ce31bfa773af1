"""Loading of config files, with custom datasets and overrides from the command line."""

import os
import traceback
from collections.abc import Sequence

import yaml
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from brloss_d2.data import CustomData, CustomDataSummary, apply_custom_data
from brloss_d2.engine.config.defaults import check_train_values, complete_train
from brloss_d2.engine.config.overrides import apply_overrides
from brloss_d2.engine.config.short_keys import DATA_KEYS, ShortKeys
from brloss_d2.engine.config.test_augmentation import set_tiles
from brloss_d2.engine.config.values import check_num_classes, check_values, describe
from brloss_d2.errors import InputError
from brloss_d2.evaluation import CityscapesEvaluator, COCOEvaluator, LVISEvaluator
from brloss_d2.utils.config_nodes import key_of, target_of

TOP_LEVEL_KEYS = ("model", "optimizer", "lr_multiplier", "dataloader", "train")
# Of who wrote a config file; the traceback of other exceptions is needed.
_MISTAKES = (
    *(SyntaxError, ImportError, NameError, AttributeError, LookupError, TypeError, ValueError),
    *(ArithmeticError, OmegaConfBaseException),
)
# What a custom dataset depends on: the folder of its split, and whether masks are learned.
_FIRST = ("train.output_dir", "dataloader.train.mapper.use_instance_mask")
_EXPECTED = f"expected the keys {', '.join(TOP_LEVEL_KEYS)}"


def load_config(
    path: str, overrides: Sequence[str] = ()
) -> tuple[DictConfig, CustomDataSummary | None]:
    """Load a config file and apply overrides from the command line. Writes nothing.

    Args:
        path: path of a LazyConfig file (.py), or of the config.yaml of a run.
        overrides: short keys and `data.*` keys, such as `loss=rs` and `data.train=FILE.json`, which
            are applied first, and `key=value` as in `apply_overrides`.

    Returns:
        The config, with exactly the keys of `TOP_LEVEL_KEYS` and every key of `train`; and the
        contents of the custom dataset, None if there is none, whose `write_split` has to be called
        before its data are loaded.

    Raises:
        InputError: the file is missing or no config, a key is unknown, a value is wrong, or the
            custom dataset has mistakes.
    """
    short, others = ShortKeys.from_overrides(overrides)
    custom_data, others = CustomData.from_overrides(others, DATA_KEYS)
    cfg = _read(short.config_file(path))
    _complete(cfg, path)
    short.apply(cfg, path, others)
    summary = None
    if custom_data:
        apply_overrides(cfg, [text for text in others if key_of(text) in _FIRST])
        summary = apply_custom_data(cfg, custom_data)
        # They are in COCO format, which the evaluators of LVIS and Cityscapes do not read.
        evaluator = target_of(cfg.dataloader.get("evaluator"))
        if summary.val and evaluator in (None, LVISEvaluator, CityscapesEvaluator):
            cfg.dataloader.evaluator = L(COCOEvaluator)(
                dataset_name="${..test.dataset.names}", output_dir="${train.output_dir}/inference"
            )
    short.apply_submission(cfg)
    apply_overrides(cfg, others)
    set_tiles(cfg, short.tile, short.overlap)
    _complete(cfg, "after the overrides")
    if cfg.dataloader.get("test", None) is None:  # whose dataset the evaluator names
        cfg.dataloader.evaluator = None
    try:
        check_train_values(cfg.train)
        check_values(cfg)
    except OmegaConfBaseException as error:  # an interpolation that refers to nothing
        cause = "; ".join(line.strip() for line in str(error).splitlines()[:2])
        raise InputError(f"Config: {cause}.") from error
    if summary is not None:
        check_num_classes(cfg.model, summary.num_classes, "custom dataset")
    if short.epochs:
        if summary is not None and summary.train is not None:
            images = summary.train.images
        else:
            try:
                images = len(instantiate(cfg.dataloader.train.dataset))
            except Exception as error:
                raise InputError(
                    "train.epochs needs the number of training images, which cannot be read: "
                    f"{error}"
                ) from error
        short.apply_epochs(cfg, images, others)
    return cfg, summary


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
        raise InputError(f"Config file {path} is not valid YAML: {error}") from error
    except _MISTAKES as error:
        cause = error
        if isinstance(error.__cause__, SyntaxError):  # detectron2 hides the line
            cause, place = error.__cause__, f"{path}, line {error.__cause__.lineno}"
        else:
            # The last file of a user; libraries come after it.
            frames = traceback.extract_tb(error.__traceback__)
            frame = next((f for f in reversed(frames) if f.name == "<module>"), frames[-1])
            place = f"{frame.filename}, line {frame.lineno}"
        raise InputError(f"Config file {place}: {describe(cause, located=False)}") from error
    if not isinstance(cfg, DictConfig):
        raise InputError(f"Config file {path}: {_EXPECTED}, found none.")
    return cfg


def _complete(cfg: DictConfig, where: str) -> None:
    """Check the keys at the top and of `train`, and add the missing ones of `train`."""
    missing = [key for key in TOP_LEVEL_KEYS if not isinstance(cfg.get(key), DictConfig)]
    if missing:
        raise InputError(f"Config ({where}): {missing[0]} is missing; {_EXPECTED}.")
    extra = [str(key) for key in cfg if key not in TOP_LEVEL_KEYS]
    if extra:
        raise InputError(
            f"Config ({where}): {extra[0]} is not one of the keys; {_EXPECTED}. In a config file "
            "the name of a helper begins with an underscore."
        )
    cfg.train = complete_train(cfg.train)
