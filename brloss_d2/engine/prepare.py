"""Checks of everything that a run needs, before it writes anything."""

import argparse
import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
import torch.distributed as dist
from detectron2.config import instantiate
from detectron2.data import DatasetMapper
from detectron2.utils import comm
from omegaconf import DictConfig, ListConfig, OmegaConf

from brloss_d2.checkpoint import is_backbone_only, local_file
from brloss_d2.data import (
    CustomData,
    CustomDataSummary,
    check_custom_images,
    check_registered_dataset,
    in_order,
    note_limits,
)
from brloss_d2.data.custom import refuse_missing_dataset
from brloss_d2.engine.classes import (
    check_classes,
    read_dataset_categories,
    registered_classes,
)
from brloss_d2.engine.config.defaults import train_defaults
from brloss_d2.engine.config.load import load_config
from brloss_d2.engine.config.values import check_num_classes, check_parts
from brloss_d2.engine.folder import check_writable, find_last_checkpoint
from brloss_d2.engine.hooks.writers import import_wandb
from brloss_d2.errors import InputError
from brloss_d2.evaluation import CityscapesEvaluator, COCOEvaluator, LVISEvaluator
from brloss_d2.evaluation.lrp import LRP_METRICS
from brloss_d2.evaluation.lvis import LVIS_METRICS
from brloss_d2.evaluation.protocols import AP_METRICS
from brloss_d2.utils.config_nodes import key_of, learns_masks, names_of, target_of
from brloss_d2.utils.suggest import did_you_mean

_TASKS = ("bbox", "segm", "keypoints")
_METRICS = {
    COCOEvaluator: (*AP_METRICS, *LRP_METRICS),
    CityscapesEvaluator: (*AP_METRICS, *LRP_METRICS),
    LVISEvaluator: (*LVIS_METRICS, *LRP_METRICS),
}


@dataclass(frozen=True)
class Job:
    """A checked command line.

    Attributes:
        cfg: effective config.
        custom_data: contents of the custom dataset; None if there is none.
        categories: category id -> name of a dataset that is a JSON file; None for other datasets.
        classes: names of the dataset by label; none if they are unknown.
        checkpoint: weights to start from or to evaluate; "" for a start from scratch.
        resume: whether to continue the run of `checkpoint`.
        device: device of the model.
    """

    cfg: DictConfig
    custom_data: CustomDataSummary | None
    categories: dict[int, str] | None
    classes: Sequence[str]
    checkpoint: str
    resume: bool
    device: torch.device


def prepare(args: argparse.Namespace) -> Job:
    """Load the config and check datasets, checkpoint, device and output folder. Writes nothing.

    Args:
        args: options of the command line: `config_file`, `opts`, `resume` and `eval_only`.

    Raises:
        InputError: something is missing or wrong; the message says what.
    """
    overrides = args.opts or ()
    misplaced = [text for text in overrides if text.startswith("-")]
    if misplaced:
        raise InputError(f"Options come before key=value: move {misplaced[0]} forward.")
    if args.resume and args.eval_only:
        raise InputError("--resume continues a training, --eval-only has none: choose one of them.")
    cfg, custom_data = load_config(args.config_file, overrides)
    for key in ("output_dir", "init_checkpoint"):
        cfg.train[key] = os.path.expanduser(cfg.train[key])  # no shell expands train.x=~
    output_dir = cfg.train.output_dir
    check_writable(output_dir)
    training = not args.eval_only
    _check_datasets(cfg, custom_data, training=training)
    check_parts(cfg, overrides, training=training)
    if training:
        _check_batch(cfg, comm.get_world_size())
        if cfg.train.wandb:
            import_wandb()
    needs = {
        "--eval-only": not training,
        "train.early_stopping": training and cfg.train.early_stopping.patience,
        "train.expected_results": cfg.train.expected_results,
    }
    what = next(filter(needs.get, needs), "")
    if what and not can_evaluate(cfg):
        raise InputError(f"{what} needs dataloader.test and dataloader.evaluator.")
    categories = read_dataset_categories(cfg, custom_data)
    classes = in_order(categories) if categories else registered_classes(cfg)
    if classes:
        check_num_classes(cfg.model, len(classes), "dataset")
    if can_evaluate(cfg):
        _check_metrics(cfg, categories, training=training)
    checkpoint, resume = cfg.train.init_checkpoint, False
    if not training:
        is_given = "train.init_checkpoint" in map(key_of, overrides)
        checkpoint = _checkpoint_to_evaluate(cfg, is_given=is_given)
    elif args.resume and (last := find_last_checkpoint(output_dir)):
        checkpoint, resume = last, True
    if checkpoint and comm.get_local_rank() == 0:
        local_file(checkpoint)  # downloads it if necessary, once per machine
    if resume or not training:
        check_classes(checkpoint, classes, must_agree=True)
    if custom_data is not None:
        custom_data = note_limits(custom_data, cfg)
        if cfg.train.check_images and comm.get_local_rank() == 0:
            custom_data = check_custom_images(custom_data, training=training)
    device = choose_device(cfg.train.device)
    return Job(cfg, custom_data, categories, classes, checkpoint, resume, device)


def check_processes(args: argparse.Namespace) -> None:
    """Check what processes need of a config, before they are started and check all of it.

    Args:
        args: options of the command line: `config_file`, `opts`, `eval_only`, `num_gpus` and
            `num_machines`.

    Raises:
        InputError: the processes cannot share the batch, or there is no such device.
    """
    # Neither a large JSON file is read here nor, for the number of epochs, a dataset.
    names = {"train.epochs", *(f"data.{key.name}" for key in fields(CustomData))}
    kept = [x for x in args.opts or () if key_of(x) not in names]
    try:
        cfg, _ = load_config(args.config_file, kept)
    except InputError:
        return  # which the processes tell, who know all keys
    choose_device(cfg.train.device)
    if not args.eval_only:
        _check_batch(cfg, args.num_gpus * args.num_machines)


def can_evaluate(cfg: DictConfig) -> bool:
    """Return whether a config describes an evaluation; `dataloader.evaluator=null` has none."""
    return all(cfg.dataloader.get(key) is not None for key in ("test", "evaluator"))


def choose_device(name: str, *, key: str = "train.device") -> torch.device:
    """Return the device for a value of `train.device`; "auto" is a GPU if there is one.

    Args:
        name: "auto", "cpu" or "cuda".
        key: what messages call the value.

    Raises:
        InputError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"{key} is {name!r}: expected auto, cpu or cuda.") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"{key} is {name!r}: expected auto, cpu or cuda.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{key} is {name!r}, but torch finds no GPU.")
    if device.type != "cuda" and comm.get_world_size() > 1 and dist.get_backend() == "nccl":
        raise InputError("Several processes on the CPU need CUDA_VISIBLE_DEVICES= (empty).")
    return device


def _check_batch(cfg: DictConfig, processes: int) -> None:
    """Check that processes can share a batch of the training."""
    images = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
    if isinstance(images, int) and images % processes:
        raise InputError(
            f"dataloader.train.total_batch_size={images}: expected a multiple of {processes}, the "
            "number of processes."
        )


def _check_datasets(
    cfg: DictConfig, custom_data: CustomDataSummary | None, *, training: bool
) -> None:
    """Check registered datasets and JSON files; datasets of other kinds check themselves."""
    to_write = custom_data.to_write if custom_data is not None else ()
    if training and custom_data and custom_data.val and not custom_data.val.annotated:
        raise InputError(
            f"data.val={custom_data.val.json_file}: it lists no annotations, so that only "
            "--eval-only can use it."
        )
    for split, needed in (("train", training), ("test", can_evaluate(cfg) or not training)):
        loader = cfg.dataloader.get(split)
        if needed and loader is None:
            raise InputError(f"dataloader.{split} is missing from the config.")
        if not needed or not isinstance(loader.get("dataset"), DictConfig):
            continue
        node = loader.dataset
        if target_of(node) is refuse_missing_dataset:
            instantiate(node)
        names, json_file = names_of(node), node.get("json_file")
        if json_file is None:
            for name in names:
                check_registered_dataset(name)
        elif json_file not in to_write and not os.path.isfile(json_file):
            key = f"dataloader.{split}.dataset"
            folder = f" and {key}.image_root=FOLDER" if "image_root" in node else ""
            raise InputError(
                f"The annotations of dataset {', '.join(names)} are missing: {json_file}. If they "
                f"have moved, set {key}.json_file=FILE{folder}."
            )


def _check_metrics(
    cfg: DictConfig, categories: Mapping[int, str] | None, *, training: bool
) -> None:
    """Check tasks and best metric of the evaluation, as far as they are known before it."""
    evaluator = cfg.dataloader.evaluator
    names = _METRICS.get(target_of(evaluator))
    tasks = evaluator.get("tasks") or _TASKS
    if names and not (isinstance(tasks, list | tuple | ListConfig) and {*tasks} <= {*_TASKS}):
        raise InputError(
            f"dataloader.evaluator.tasks is {tasks}: expected a list of {', '.join(_TASKS)}."
        )
    mapper = OmegaConf.select(cfg, "dataloader.train.mapper")
    is_known = inspect.isclass(target_of(mapper)) and issubclass(target_of(mapper), DatasetMapper)
    if names and is_known and not learns_masks(cfg):
        if evaluator.get("tasks") and "segm" in tasks:
            raise InputError(
                f"dataloader.evaluator.tasks is {tasks}, but this config learns no masks: take one "
                "that does, such as mask_rcnn."
            )
        tasks = [task for task in tasks if task != "segm"]
    wanted = [("expected_results", "/".join(row[:2])) for row in cfg.train.expected_results]
    if training:
        wanted.append(("best_metric", cfg.train.best_metric))
    # The default metric may belong to a task that is not evaluated, such as boxes.
    defaults = ("", train_defaults()["best_metric"])
    per_class = [f"{m}-{c}" for m in ("AP", "oLRP") for c in (categories or {}).values()]
    known = [f"{task}/{name}" for task in tasks for name in (*(names or ()), *per_class)]
    if target_of(evaluator) is CityscapesEvaluator:
        known += ["segm_cityscapes/AP", "segm_cityscapes/AP50"]
    for key, name in wanted:
        metric = name.removeprefix("ema/")
        if metric != name and not cfg.train.ema.enabled:
            raise InputError(f"train.{key}={name} needs train.ema.enabled=True.")
        if names is None or (key == "best_metric" and name in defaults):
            continue
        if metric not in known and (categories or "-" not in metric):
            hint = did_you_mean(metric, known, count=1, prefix=name.removesuffix(metric))
            raise InputError(
                f"train.{key}={name} is no metric of this evaluation.{hint} Expected TASK/METRIC "
                f"with a task of {', '.join(tasks)} and a metric of {', '.join(names)}."
            )


def _checkpoint_to_evaluate(cfg: DictConfig, *, is_given: bool) -> str:
    """Choose the checkpoint for --eval-only.

    `train.init_checkpoint` is it on the command line. In a config it is where training started,
    from a classifier or a detector of other data, and the checkpoints of the run come first.
    """
    initial, output_dir = cfg.train.init_checkpoint, cfg.train.output_dir
    if is_backbone_only(initial):
        initial = ""
    if initial and is_given:
        return initial
    final = os.path.join(output_dir, "model_final.pth")
    if os.path.isfile(final):
        return final
    if checkpoint := find_last_checkpoint(output_dir) or initial:
        return checkpoint
    raise InputError(
        f"There is nothing to evaluate: {output_dir} has no checkpoint. Pass "
        "train.init_checkpoint=FILE, or train.output_dir of a run."
    )
