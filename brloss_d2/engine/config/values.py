"""Checks of the values of right keys: ranges, names, and whether all parts can be built."""

import inspect
import math
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from brloss_d2.engine.config.test_augmentation import with_test_augmentation
from brloss_d2.engine.randomness import preserved_rng
from brloss_d2.errors import InputError
from brloss_d2.utils.config_nodes import (
    key_of,
    learns_masks,
    located,
    target_of,
    walk,
    walk_nodes,
)
from brloss_d2.utils.suggest import did_you_mean
from brloss_d2.utils.terminal import silenced


class _Rule(NamedTuple):
    """What a number has to be, in words and as a test."""

    expected: str
    test: Callable[[float], bool]
    keys: str


_LARGEST, _LARGEST_BATCH = 10**9, 10**5  # larger numbers are mistakes

# By the last part of a key; lists are checked number by number, and null is for the part to judge.
_RULES = (
    _Rule(
        "an integer, at least 1",
        lambda x: 1 <= x <= _LARGEST and x == int(x),
        "short_edge_length max_size conv_dims fc_dims in_channels out_channels "
        "num_anchors num_classes num_groups num_queries channels output_size topk max_detections "
        "test_topk_per_image max_dets_per_image pre_nms_topk post_nms_topk batch_size_per_image "
        "images_per_pool pools_per_epoch max_masks num_steps",
    ),
    _Rule(
        "an integer, at least 0",
        lambda x: 0 <= x <= _LARGEST and x == int(x),
        "num_workers",
    ),
    _Rule(
        f"an integer from 1 to {_LARGEST_BATCH}",
        lambda x: 1 <= x <= _LARGEST_BATCH and x == int(x),
        "total_batch_size",
    ),
    _Rule("an integer from 0 to 5", lambda x: x in range(6), "freeze_at"),
    _Rule(
        "a number from 0 to 1",
        lambda x: 0 <= x <= 1,
        "score_thresh test_score_thresh nms_thresh test_nms_thresh warmup_length warmup_factor "
        "thresholds prob mosaic copy_paste min_iou min_low_quality_iou",
    ),
    _Rule("a number above 0", lambda x: x > 0, "lr pixel_std sizes aspect_ratios strides sigma"),
    _Rule(
        "a number, at least 0",
        lambda x: x >= 0,
        "loss_weight box_weight weight weight_decay weight_decay_norm momentum beta gamma min_side",
    ),
)
_RULE_OF = {key: rule for rule in _RULES for key in rule.keys.split()}
_SIDE = 128  # of the image that a changed model is tried on
_PARTS = ("model", "optimizer", "lr_multiplier", "dataloader")


def check_values(cfg: DictConfig) -> None:
    """Check values that would build a part, but make no sense or could not be written.

    Args:
        cfg: config with all overrides.

    Raises:
        InputError: a number is out of range, a `_target_` does not exist, or a function or class
            was defined in a config file, where the config.yaml of the run would not find it.
    """
    for path, key, value in _values(cfg):
        numbers = list(_numbers(value))
        rule = _RULE_OF.get(key)
        if path == "optimizer.lr" and not isinstance(value, int | float):
            raise InputError(f"{path} is {value}: expected a number above 0.")
        if not all(math.isfinite(x) for x in numbers):
            raise InputError(f"{path} is {value}: expected finite numbers.")
        if rule and not all(rule.test(x) for x in numbers):
            raise InputError(f"{path} is {value}: expected {rule.expected}.")
        if isinstance(value, np.ndarray | torch.Tensor):
            kind = type(value).__name__
            raise InputError(f"{path} is of type {kind}: expected a number or a list of numbers.")
        if key == "_target_" and not callable(value):
            if not isinstance(value, str):
                raise InputError(f"{path} is {value}: expected the name of a class or function.")
            target_of(OmegaConf.select(cfg, path.rpartition(".")[0]))
        # config.yaml stores names, which have to be found again. Each access makes a new method.
        is_code = inspect.isroutine(value) or inspect.isclass(value)
        if is_code and located(f"{value.__module__}.{value.__qualname__}") != value:
            raise InputError(
                f"{path} is {value.__qualname__}, which is defined in a config file: the "
                "config.yaml of the run could not name it. Move it to a module that Python can "
                "import."
            )
        if key == "image_format" and value != cfg.model.get("input_format", value):
            raise InputError(f"{path} is {value}, but model.input_format {cfg.model.input_format}.")


def check_num_classes(model: DictConfig, expected: int, data: str) -> None:
    """Check that a model has as many classes as its data.

    Raises:
        InputError: a `num_classes` differs: fewer would hide classes, more would never be learned.
    """
    for node in walk_nodes(model):
        if node.get("num_classes", expected) != expected:
            raise InputError(
                f"The model has num_classes={node.num_classes}, but the {data} has {expected} "
                "classes: leave num_classes out, it is set from the data."
            )


def check_parts(cfg: DictConfig, overrides: Sequence[str] = (), *, training: bool = True) -> None:
    """Build model, mappers, and for training optimizer and schedule once, and discard them.

    Args:
        cfg: config, unchanged afterwards.
        overrides: overrides of the command line, which the message repeats.
        training: whether the config is to train.

    Raises:
        InputError: a part cannot be built; the message names the innermost one.
    """
    with preserved_rng(), silenced(["detectron2.config.instantiate"]):
        model = _build(cfg, "model", overrides)
        with_test_augmentation(model, cfg)
        is_changed = any(key_of(text).startswith("model.") for text in overrides)
        is_known = type(model).__module__.startswith(("brloss_d2.", "detectron2."))
        if training and is_changed and is_known:
            _try(model, cfg, overrides)
        for split in ("train", "test") if training else ("test",):
            if cfg.dataloader.get(split) is not None:
                _build_loader(cfg, split, overrides)
        if not training:
            return
        cfg.optimizer.params.model = model
        try:
            optimizer = _build(cfg, "optimizer", overrides)
        finally:
            del cfg.optimizer.params["model"]
        _check_groups(optimizer)
        schedule = _build(cfg, "lr_multiplier", overrides)
        rates = [schedule(i / 10) for i in range(10)]
        if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
            raise InputError(f"lr_multiplier gives {rates}: expected finite numbers, at least 0.")


def _check_groups(optimizer: torch.optim.Optimizer) -> None:
    """Check the options of parameter groups, which torch takes as they are."""
    for group in optimizer.param_groups:
        known = {"params", "param_names", *optimizer.defaults}
        for key, value in group.items():
            if key not in known:
                name = type(optimizer).__name__
                raise InputError(
                    f"optimizer.params: {name} has no {key}.{did_you_mean(key, known)}"
                )
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise InputError(
                    f"optimizer.params: {key} is {value}: expected a number, at least 0."
                )


def _try(model: nn.Module, cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Run a model on a small image with an object, to see whether its parts fit together."""
    target = Instances((_SIDE, _SIDE))
    target.gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 72.0, 56.0]]))
    target.gt_classes = torch.zeros(1, dtype=torch.int64)
    if learns_masks(cfg):
        target.gt_masks = BitMasks(torch.ones(1, _SIDE, _SIDE, dtype=torch.bool))
    image = torch.randint(0, 256, (3, _SIDE, _SIDE), dtype=torch.uint8)
    batch = [{"image": image, "height": _SIDE, "width": _SIDE, "instances": target}]
    try:
        with torch.no_grad(), EventStorage():
            model.train()(batch)
            model.eval()(batch)
    except NotImplementedError:  # an operator of GPUs only
        return
    except Exception as error:
        raise InputError(
            f"The model fails on a test image with {describe(error)}{_given(overrides, 'model.')}"
        ) from error


def describe(error: Exception, *, located: bool = True) -> str:
    """Return type and first line of an exception, and where it was raised in code of users.

    Args:
        error: exception that was raised.
        located: whether to name the line, unless it is one of this package or a library.
    """
    text = (str(error).strip() or "no message").splitlines()[0]
    if not isinstance(error, InputError):  # ours say all there is to say
        text = f"{type(error).__name__}: {text}"
    if not located:
        return f"{text.rstrip('.')}."
    last = traceback.extract_tb(error.__traceback__)[-1]
    hidden = {"brloss_d2", "site-packages"} & set(last.filename.split(os.sep))
    return text.rstrip(".") + ("." if hidden else f" ({last.filename}, line {last.lineno}).")


def _build(cfg: DictConfig, path: str, overrides: Sequence[str]) -> Any:
    """Build the part at a path; find the innermost node that fails, if any."""
    try:
        return instantiate(OmegaConf.select(cfg, path))
    except Exception as error:
        failed, cause = path, error
        below = list(walk(OmegaConf.select(cfg, path), f"{path}."))
        nodes = [x for x in below if isinstance(x[1], DictConfig) and "_target_" in x[1]]
        for inner, node in sorted(nodes, key=lambda found: -found[0].count(".")):
            try:
                instantiate(node)
            except Exception as inner_error:
                failed, cause = inner, inner_error
                break
        name = getattr(target_of(OmegaConf.select(cfg, failed)), "__name__", "node")
        raise InputError(
            f"{failed} ({name}) cannot be built: {describe(cause)}{_given(overrides, failed)}"
        ) from error


def _build_loader(cfg: DictConfig, split: str, overrides: Sequence[str]) -> None:
    """Build the mapper of a loader, and one of detectron2's loaders with an empty image."""
    path, node = f"dataloader.{split}", cfg.dataloader[split]
    parts = {
        str(key): _build(cfg, f"{path}.{key}", overrides)
        for key in node
        if key not in ("_target_", "dataset", "sampler")
    }
    target = target_of(node)
    # A sampler may look at the dataset; with several processes they would agree on a seed.
    is_plain = target in (build_detection_train_loader, build_detection_test_loader)
    if is_plain and node.get("dataset") is None:
        raise InputError(
            f"{path}.dataset is missing: name a dataset, or set data.train or data.val."
        )
    if is_plain and node.get("sampler") is None and comm.get_world_size() == 1:
        try:
            target(dataset=[{"annotations": []}], **parts)
        except Exception as error:
            text = f"{path} cannot be built: {describe(error)}{_given(overrides, path)}"
            raise InputError(text) from error


def _given(overrides: Sequence[str], path: str) -> str:
    """Return a sentence about what the command line sets below a path."""
    given = ", ".join(text for text in overrides if key_of(text).startswith(path))
    return f" Set on the command line: {given}." if given else ""


def _values(cfg: DictConfig) -> Iterator[tuple[str, str, Any]]:
    """Yield path, last part and value of all keys of the parts, lists of numbers as a whole."""
    pending = [(part, part, cfg[part]) for part in _PARTS]
    while pending:
        path, key, value = pending.pop(0)
        if isinstance(value, DictConfig):
            keys = [k for k in value if not OmegaConf.is_missing(value, k)]
            pending += [(f"{path}.{k!s}", str(k), value[k]) for k in keys]
            continue
        yield path, key, value
        if isinstance(value, ListConfig):
            pending += [
                (f"{path}.{i}", "", x)
                for i, x in enumerate(value)
                if not isinstance(x, int | float | str)
            ]


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, ListConfig | list | tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value
