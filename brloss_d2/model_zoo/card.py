"""Recipe cards: everything that a config trains, resolved, on one page."""

import textwrap
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from brloss_d2.model_zoo.configs import config_file, config_files
from brloss_d2.model_zoo.entries import NUMBERS, cell, published
from brloss_d2.model_zoo.hyperparameters import hyperparameters
from brloss_d2.utils.config_nodes import learns_masks, walk_nodes
from brloss_d2.utils.text import counted

_WIDTH = 80  # columns of a terminal
_LABEL = 13


@dataclass(frozen=True)
class Schedule:
    """How a config trains.

    Attributes:
        optimizer: class name of the optimizer.
        lr: learning rate after the warm-up, before the first drop.
        images_per_iteration: images per step of the optimizer, over all processes.
        iterations: steps of the optimizer.
        milestones: iterations at which the learning rate drops; empty if it decays all the time.
        factor: what the learning rate is multiplied by at each milestone; 0 if there is none.
        warmup_iterations: iterations of linear rise at the start; 0 if there are none.
        warmup_factor: what the learning rate starts with, as a fraction of `lr`.
    """

    optimizer: str
    lr: float
    images_per_iteration: int
    iterations: int
    milestones: tuple[int, ...]
    factor: float
    warmup_iterations: int
    warmup_factor: float


def schedule_of(cfg: DictConfig) -> Schedule:
    """Return how a config trains, from its resolved values."""
    total, node = cfg.train.max_iter, cfg.lr_multiplier
    steps = node.get("scheduler", node)
    milestones = list(steps.get("milestones", []))
    return Schedule(
        optimizer=_name(cfg.optimizer),
        lr=cfg.optimizer.lr,
        images_per_iteration=cfg.dataloader.train.total_batch_size * cfg.train.accumulate,
        iterations=total,
        # The last one is the end of the training, in the same unit as the others.
        milestones=tuple(round(m / milestones[-1] * total) for m in milestones[:-1]),
        factor=steps["values"][1] / steps["values"][0] if milestones else 0.0,
        warmup_iterations=round(node.get("warmup_length", 0.0) * total),
        warmup_factor=node.get("warmup_factor", 1.0),
    )


def drop_epochs(schedule: Schedule, epochs: int) -> list[str]:
    """Return the epochs after which the learning rate drops, of so many epochs."""
    return [f"{m * epochs / schedule.iterations:g}" for m in schedule.milestones]


def describe(name: str) -> str:
    """Return the recipe card of a config, resolved, in lines of 80 columns.

    Args:
        name: name of the config as in `list_configs()`, or path of a config file.

    Raises:
        InputError: there is no such config, or the file is no config.

    Example:
        >>> from brloss_d2 import model_zoo
        >>> card = model_zoo.describe("coco/atss_R_50_FPN_brs_1x")
        >>> [line for line in card.splitlines() if line.startswith("Optimizer")]
        ['Optimizer    SGD, lr 0.008, momentum 0.9, weight decay 0.0001']
    """
    file = Path(name if Path(name).is_file() else config_file(name)).resolve()
    names = {path.resolve(): known for known, path in config_files().items()}
    name = names.get(file, name)
    cfg, row = LazyConfig.load(str(file)), published()["results"].get(name, {})
    command = f"brloss-train --config {name}"
    if file in names and file.is_relative_to(Path.cwd()):  # a working copy
        command = f"python train_net.py --config-file {file.relative_to(Path.cwd())}"
    optimizer, schedule = _training(cfg, row.get("epochs"))
    sections = {
        "Published": _published(name, row),
        "Train with": [command],
        "Losses": [*_losses(cfg.model), *_hyperparameters(cfg.model, row)],
        "Optimizer": [optimizer],
        "Schedule": [schedule],
        "Data": _data(cfg),
        "Model": _model(cfg),
    }
    lines = [name, "=" * len(name)]
    for title, texts in sections.items():
        lines.append("")
        for i, text in enumerate(texts):
            label = f"{title if i == 0 else '':{_LABEL}}"
            indent = len(text) - len(text.lstrip())
            lines += textwrap.wrap(
                text.lstrip(),
                _WIDTH,
                initial_indent=label + " " * indent,
                subsequent_indent=" " * (_LABEL + indent + 4),
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def _model(cfg: DictConfig) -> Iterator[str]:
    parts = {str(key): value for key, value in cfg.model.items() if _is_part(value)}
    parameters = ""
    try:  # without memory or time for weights
        with torch.device("meta"):
            model = instantiate(cfg.model)
        count = sum(x.numel() for x in model.parameters())
        parameters = f"{count / 1e6:.1f} million parameters, "
    except RuntimeError:  # a model that reads values while it is built
        pass
    yield f"{parameters}starts from {cfg.train.init_checkpoint or 'random weights'}"
    yield _text(cfg.model, omit=set(parts))
    for key, value in parts.items():
        if not _is_criterion(value):
            yield from _part(key, value)


def _part(key: str, value: Any, indent: int = 2) -> Iterator[str]:
    """Yield one line of text per part of a model; what is too long gives its parts one by one."""
    if isinstance(value, ListConfig) and _is_part(value) and len({_text(x) for x in value}) > 1:
        for i, item in enumerate(value):
            yield from _part(f"{key}[{i}]", item, indent)
        return
    text = " " * indent + f"{key}: {_text(value)}"
    nodes = value.items() if isinstance(value, DictConfig) else ()
    parts = {str(k): v for k, v in nodes if _is_part(v)}
    if len(text) <= 2 * (_WIDTH - _LABEL) or not parts:
        yield text
        return
    yield " " * indent + f"{key}: {_text(value, omit=set(parts))}"
    for k, v in parts.items():
        if not _is_criterion(v):
            yield from _part(k, v, indent + 2)


def _is_part(value: Any) -> bool:
    """Return whether a value is built: a node with `_target_`, or a list of such nodes."""
    if isinstance(value, ListConfig):
        return bool(len(value)) and _is_part(value[0])
    return isinstance(value, DictConfig) and "_target_" in value


def _is_criterion(value: Any) -> bool:
    return isinstance(value, DictConfig) and _name(value).endswith("Criterion")


def _losses(model: DictConfig) -> Iterator[str]:
    """Yield each criterion with the parts that it trains and the weight of their losses."""
    sites: dict[str, list[str]] = {}
    for owner in walk_nodes(model):
        for key in owner if not _is_criterion(owner) else ():
            if not (isinstance(owner[key], DictConfig) and _is_criterion(owner[key])):
                continue
            path = owner._get_full_key(key).removeprefix("model.").removesuffix("criterion")
            weight = owner.get("loss_weight", owner.get("weight", 1.0))
            site = (path.rstrip("._") or "model") + (f" x {weight:g}" if weight != 1 else "")
            sites.setdefault(_text(owner[key]), []).append(site)
    for criterion, owners in sites.items():
        if owners == ["model"]:  # of a one-stage detector
            yield criterion
        else:
            yield from (f"{', '.join(owners)}:", f"  {criterion}")


def _hyperparameters(model: DictConfig, row: dict[str, Any]) -> Iterator[str]:
    """Yield a line of what has to be chosen for the losses."""
    found, stated = hyperparameters(model), row.get("hyperparameters")
    if found is not None:
        note = f" ({stated} published)" if stated not in (None, len(found)) else ""
        values = ", ".join(f"{key} {_text(value)}" for key, value in found.items())
        yield f"{counted(len(found), 'hyper-parameter')}{note}: {values}"


def _training(cfg: DictConfig, epochs: int | None) -> tuple[str, str]:
    """Return the lines of the optimizer and of the schedule."""
    optimizer, schedule = cfg.optimizer, schedule_of(cfg)
    first = [schedule.optimizer, f"lr {schedule.lr:g}"]
    keys = [key for key in ("momentum", "betas", "weight_decay") if key in optimizer]
    first += [f"{key.replace('_', ' ')} {_text(optimizer[key])}" for key in keys]
    factors = optimizer.params.get("lr_factors", {})
    first += [f"lr of {key} x {factor:g}" for key, factor in factors.items()]
    if cfg.train.clip_grad_norm:
        first.append(f"gradients clipped to norm {cfg.train.clip_grad_norm:g}")
    length = f"{schedule.iterations:,} iterations" + (f" ({epochs} epochs)" if epochs else "")
    second = [f"{length} of {schedule.images_per_iteration} images"]
    if schedule.milestones:
        drops = " and ".join(f"{m:,}" for m in schedule.milestones)
        if epochs:
            after = drop_epochs(schedule, epochs)
            drops += f" (after epoch{'s' * (len(after) > 1)} {', '.join(after)})"
        second.append(f"lr x {schedule.factor:g} at {drops}")
    else:
        steps = cfg.lr_multiplier.get("scheduler", {}).get("num_steps")
        second.append("cosine decay of the lr" + (f" in {steps} steps" if steps else ""))
    if schedule.warmup_iterations:
        second.append(
            f"linear warm-up from x {schedule.warmup_factor:g} in {schedule.warmup_iterations} "
            "iterations"
        )
    if cfg.train.eval_period:
        second.append(f"evaluation every {cfg.train.eval_period:,}")
    return ", ".join(first), "; ".join(second)


def _data(cfg: DictConfig) -> Iterator[str]:
    loader = cfg.dataloader
    train, test = loader.train, loader.test
    yield f"{_text(train.dataset.names)} for training, {_text(test.dataset.names)} for testing"
    masks = ", with masks" if learns_masks(cfg) else ""
    yield f"  training: {_text(train.mapper.augmentations)}{masks}"
    if "sampler" in train:
        yield f"  sampler: {_name(train.sampler)} by {_name(train.sampler.repeat_factors)}"
    yield f"  testing: {_text(test.mapper.augmentations)}, {_name(loader.evaluator)}"


def _published(name: str, row: dict[str, Any]) -> Iterator[str]:
    numbers = [f"{label} {cell(row, key)}" for key, label in NUMBERS.items() if key in row]
    if "seconds" in row:
        numbers.append(f"{cell(row, 'seconds')} s per iteration on 4 A100 GPUs")
    source = f" ({row['source']})" if "source" in row else ""
    yield ", ".join(numbers) + source + "; not measured with this package" if numbers else "nothing"
    for group in published()["deviations"].values():
        for deviation in group:
            if any(fnmatch(name, pattern) for pattern in deviation.get("configs", [])):
                yield f"  deviation: {deviation['here']}; published: {deviation['published']}"


def _name(node: DictConfig) -> str:
    """Return the name of what a node builds, a class or a function, "" if it builds nothing."""
    target = node.get("_target_", "")
    return target.rpartition(".")[2] if isinstance(target, str) else target.__name__


def _text(value: Any, omit: Collection[str] = ()) -> str:
    """Return a value as one line of text, nodes as calls; criteria have lines of their own."""
    if isinstance(value, DictConfig):
        inside = _is_criterion(value)
        arguments = []
        for key in (str(k) for k in value if k != "_target_" and k not in omit):
            if OmegaConf.is_missing(value, key) or (_is_criterion(value[key]) and not inside):
                continue
            if value[key] == {}:  # what a criterion does without
                continue
            plain = inside and key in ("cls_loss", "box_loss", "mask_loss", "balancer", "criterion")
            arguments.append(_text(value[key]) if plain else f"{key}={_text(value[key])}")
        return f"{_name(value)}({', '.join(arguments)})"
    if isinstance(value, ListConfig | list | tuple):
        texts = [_text(x) for x in value]
        if len(texts) > 1 and len(set(texts)) == 1 and _is_part(value):
            return f"{len(texts)} x {texts[0]}"
        return f"[{', '.join(texts)}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return getattr(value, "__name__", str(value))
