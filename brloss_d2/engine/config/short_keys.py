"""Short keys of the command line: one word for what is spread over a config."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

import yaml
from detectron2.config import LazyCall as L
from detectron2.data.samplers import RepeatFactorTrainingSampler
from omegaconf import DictConfig, ListConfig
from tabulate import tabulate

from brloss_d2.checkpoint.sources import TORCHVISION, is_backbone_only
from brloss_d2.data import CustomData
from brloss_d2.engine.config.augmentation import set_augmentation
from brloss_d2.engine.config.test_augmentation import set_test_augmentation
from brloss_d2.engine.optimizer import params_by_name
from brloss_d2.errors import InputError
from brloss_d2.evaluation import COCOEvaluator
from brloss_d2.evaluation.submission import check_submission_name
from brloss_d2.model_zoo import set_backbone, set_loss
from brloss_d2.model_zoo.losses import config_with_loss
from brloss_d2.utils.config_nodes import key_of, target_of, walk_nodes

# Key -> attribute, type, meaning.
_KEYS: dict[str, tuple[str, type, str]] = {
    "loss": ("loss", str, "loss of all parts of the detector: rs, brs, ce, focal, ..."),
    "backbone": (
        *("backbone", str),
        "another backbone: a classifier of torchvision, mobilenet_v2, ..., or timm/NAME",
    ),
    "data.short_side": (
        *("short_side", int),
        "shorter side of the images in pixels, in training and evaluation; max_size in proportion",
    ),
    "data.batch_size": ("batch_size", int, "images per batch of the data loader, of all GPUs"),
    "data.augment": (
        *("augment", str),
        "augmentation of the training images: none, light, strong or aerial",
    ),
    "data.repeat_rare": (
        *("repeat_rare", float),
        "share of the images below which a class is rare, so that its images are repeated",
    ),
    "train.epochs": (
        *("epochs", float),
        "length of the training in passes over the images; the schedule follows",
    ),
    "train.layer_decay": (
        *("layer_decay", float),
        "factor of the learning rate from each layer of the backbone to the one below, such as 0.8",
    ),
    "test.augmentation": (
        *("test_scales", list),
        "evaluation and prediction in several sizes and mirrored: True, or factors [0.75,1,1.25]",
    ),
    "test.tile": (
        *("tile", int),
        "evaluation and prediction in tiles of this side in pixels, for large images",
    ),
    "test.overlap": ("overlap", float, "part of a tile that the next one shares (0.2)"),
    "test.submission": (
        *("submission", str),
        "name of the detector in files for COCO's server, which an evaluation then writes",
    ),
}
# For messages about misspelled keys.
SHORT_KEYS = tuple(_KEYS)
DATA_KEYS = tuple(key for key in _KEYS if key.startswith("data."))


@dataclass(frozen=True)
class ShortKeys:
    """Values of the short keys of a command line; None if a key is not given.

    Attributes:
        loss: name of a loss, as in `brloss_d2.model_zoo.list_criteria`.
        backbone: name of a backbone, as for `brloss_d2.model_zoo.set_backbone`.
        short_side: shorter side of images in pixels.
        batch_size: images per batch of the data loader.
        augment: name of a preset, see `set_augmentation`.
        repeat_rare: share of the images below which a class is rare, see `_repeat_rare`.
        epochs: length of the training in passes over the training images.
        layer_decay: factor of the learning rate from layer to layer, see `params_by_name`.
        test_scales: sizes for test-time augmentation, see `set_test_augmentation`.
        tile: side of tiles in pixels of the test image, see `set_tiles`.
        overlap: part of a tile that the next one shares.
        submission: name of the detector in the files of `write_submission`.
    """

    loss: str | None = None
    backbone: str | None = None
    short_side: int | None = None
    batch_size: int | None = None
    augment: str | None = None
    repeat_rare: float | None = None
    epochs: float | None = None
    layer_decay: float | None = None
    test_scales: list[float] | None = None
    tile: int | None = None
    overlap: float | None = None
    submission: str | None = None

    @classmethod
    def from_overrides(cls, overrides: Sequence[str]) -> tuple["ShortKeys", list[str]]:
        """Split `key=value` overrides into the short keys and all others; the last one counts.

        Raises:
            InputError: the value of a short key is wrong, or `train.max_iter` is given too.
        """
        values: dict[str, Any] = {}
        others = []
        for override in overrides:
            key, _, text = override.partition("=")
            if key in _KEYS:
                attribute, kind, _ = _KEYS[key]
                values[attribute] = _parse(key, text.strip(), kind)
            else:
                others.append(override)
        if "epochs" in values and "train.max_iter" in map(key_of, others):
            raise InputError(
                "train.epochs and train.max_iter both set the length of training: leave one out."
            )
        return cls(**values), others

    def config_file(self, path: str) -> str:
        """Return the config to load: with `loss`, the packaged sibling that trains it, if any."""
        return (self.loss and config_with_loss(path, self.loss)) or path

    def apply(self, cfg: DictConfig, path: str, overrides: Sequence[str]) -> None:
        """Set what most short keys stand for in a config that was just loaded.

        Args:
            cfg: config, changed in place.
            path: path of the config file that was asked for.
            overrides: overrides of the command line, which are applied afterwards.

        Raises:
            InputError: the config has no part that a key is about, or cannot train with the loss.
        """
        if self.loss and not config_with_loss(path, self.loss):
            set_loss(cfg.model, self.loss)
        if self.backbone:
            self._apply_backbone(cfg, self.backbone, overrides)
        if self.short_side:
            for split in ("train", "test"):
                if cfg.dataloader.get(split) is not None:
                    _set_short_side(cfg.dataloader[split], self.short_side, split)
        if self.augment:
            set_augmentation(cfg, self.augment)
        if self.repeat_rare:
            _repeat_rare(cfg, self.repeat_rare)
        if self.batch_size:
            cfg.dataloader.train.total_batch_size = self.batch_size
        if self.layer_decay is not None:
            params = cfg.optimizer.get("params")
            if target_of(params) is not params_by_name:
                raise InputError("train.layer_decay needs optimizer.params to be params_by_name.")
            params.layer_decay = self.layer_decay
        if self.test_scales is not None:
            set_test_augmentation(cfg, self.test_scales)

    def _apply_backbone(self, cfg: DictConfig, name: str, overrides: Sequence[str]) -> None:
        """Set the backbone, and its own weights of ImageNet in place of those of the old one."""
        given = [x for x in overrides if key_of(x) == "train.init_checkpoint"]
        initial = given[-1].partition("=")[2] if given else cfg.train.init_checkpoint
        from_scratch = initial.strip("'\"") == ""
        if not is_backbone_only(cfg.train.init_checkpoint):
            set_backbone(cfg.model, name, fixed_stats=not from_scratch)
        elif name.startswith("timm/"):
            set_backbone(cfg.model, name, fixed_stats=not from_scratch, pretrained=not given)
            cfg.train.init_checkpoint = ""
        else:
            set_backbone(cfg.model, name, fixed_stats=not from_scratch)
            cfg.train.init_checkpoint = TORCHVISION + name

    def apply_submission(self, cfg: DictConfig) -> None:
        """Make the evaluator write files for COCO's server, if a name for them is given.

        Args:
            cfg: config with its data, changed in place.

        Raises:
            InputError: the evaluator is not that of COCO, or the name cannot be part of a file.
        """
        if not self.submission:
            return
        evaluator = cfg.dataloader.get("evaluator")
        if target_of(evaluator) is not COCOEvaluator:
            raise InputError("test.submission needs dataloader.evaluator to be a COCOEvaluator.")
        check_submission_name(self.submission)
        evaluator.submission = self.submission

    def apply_epochs(self, cfg: DictConfig, images: int, overrides: Sequence[str]) -> None:
        """Set the length of the training, and what belongs to it.

        Evaluations come as often per training as in the config, after whole epochs, and each is
        preceded by a checkpoint. The warm-up keeps its number of iterations, up to a tenth of the
        training.

        Args:
            cfg: config with all overrides, changed in place.
            images: number of training images.
            overrides: overrides of the command line; what they set stays.
        """
        if not self.epochs:
            return
        train, given = cfg.train, set(map(key_of, overrides))
        before = train.max_iter
        per_epoch = images / (cfg.dataloader.train.total_batch_size * train.accumulate)
        train.max_iter = max(1, math.ceil(self.epochs * per_epoch - 1e-9))
        if train.eval_period and "train.eval_period" not in given:
            epochs = max(1, round(self.epochs * train.eval_period / before))
            train.eval_period = max(1, math.ceil(epochs * per_epoch - 1e-9))
        if train.eval_period and not any(key.startswith("train.checkpointer") for key in given):
            train.checkpointer.period = min(train.checkpointer.period, train.eval_period)
        warmup = cfg.lr_multiplier.get("warmup_length")
        if warmup and "lr_multiplier.warmup_length" not in given:
            kept = min(warmup * before / train.max_iter, 0.1)
            cfg.lr_multiplier.warmup_length = max(warmup, kept)
        for node in walk_nodes(cfg.model):
            if "pools_per_epoch" in (node.get("balancer") or {}):
                pool = node.get("images_per_pool") or cfg.dataloader.train.total_batch_size
                node.balancer.pools_per_epoch = max(1, images // pool)


def short_keys() -> str:
    """Return a table in Markdown of the short keys, those of custom datasets included."""
    rows = [(f"`{key}`", text) for key, (_, _, text) in _KEYS.items()]
    rows += [(f"`data.{key.name}`", key.metadata["text"]) for key in fields(CustomData)]
    return tabulate(rows, ["short key", "meaning"], "pipe")


def _parse(key: str, text: str, kind: type) -> Any:
    if kind is list:  # of scales; none for True, and None for False
        with suppress(yaml.YAMLError):
            value = yaml.safe_load(text)
            if isinstance(value, bool):
                return [] if value else None
            scales = value if isinstance(value, list) else []
            if scales and all(type(x) in (int, float) and 0 < x < math.inf for x in scales):
                return scales
        raise InputError(f"{key} is {text!r}: expected True, False or factors such as [0.75,1].")
    if kind is str:
        if not text:
            raise InputError(f"{key} has no value: expected {key}=NAME.")
        return text
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not (value > 0 and math.isfinite(value)):
        what = "an integer, at least 1" if kind is int else "a number above 0"
        raise InputError(f"{key} is {text!r}: expected {what}.")
    return value


def _repeat_rare(cfg: DictConfig, threshold: float) -> None:
    """Repeat images with rare classes (Gupta et al., "LVIS", CVPR 2019, appendix B.2)."""
    if threshold > 1:
        raise InputError(f"data.repeat_rare is {threshold:g}: expected a share, at most 1.")
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency
    cfg.dataloader.train.sampler = L(RepeatFactorTrainingSampler)(
        repeat_factors=L(factors)(
            dataset_dicts="${dataloader.train.dataset}", repeat_thresh=threshold
        )
    )


def _set_short_side(loader: DictConfig, side: int, split: str) -> None:
    """Scale all sizes in pixels of the augmentations so that the largest short side is `side`."""
    sizes, short_sides = [], []
    for node in walk_nodes(loader.get("mapper")):
        for key in ("short_edge_length", "max_size", "shape", "crop_size"):
            value = node.get(key) or []
            values = list(value) if isinstance(value, ListConfig | tuple | list) else [value]
            if values and min(values) > 1:  # else a crop in parts of the image
                sizes.append((node, key, values))
                short_sides += [min(values)] if key == "shape" else []
                short_sides += values if key == "short_edge_length" else []
    if not short_sides:
        raise InputError(
            f"data.short_side={side}: dataloader.{split}.mapper resizes nothing in this config."
        )
    for node, key, values in sizes:
        scaled = [max(1, round(value * side / max(short_sides))) for value in values]
        node[key] = scaled if isinstance(node[key], ListConfig | tuple) else scaled[0]
