"""Check all that a run needs before it writes anything."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from detectron2.config import instantiate
from detectron2.utils import comm
from omegaconf import DictConfig, ListConfig

from brloss_d2.checkpoint import is_backbone_only, local_file
from brloss_d2.data import CustomDataSummary, check_registered_dataset
from brloss_d2.data.custom import refuse_missing_dataset
from brloss_d2.engine.config.load import load_config
from brloss_d2.engine.hooks.writers import import_wandb
from brloss_d2.errors import InputError
from brloss_d2.utils.config_nodes import target_of


@dataclass(frozen=True)
class Job:
    """What a command line asks for, checked.

    Attributes:
        cfg: the effective config.
        own_data: what was found in own data, if there is any.
        checkpoint: what to start from or to evaluate; "" starts from scratch.
        resume: continue the run that `checkpoint` belongs to.
        device: where the model goes.
    """

    cfg: DictConfig
    own_data: CustomDataSummary | None
    checkpoint: str
    resume: bool
    device: torch.device

    @property
    def output_dir(self) -> str:
        return self.cfg.train.output_dir


def prepare(args: argparse.Namespace) -> Job:
    """Load the config and check data, checkpoint, device and output folder. Writes nothing there.

    Args:
        args: with `config_file`, `opts`, `resume` and `eval_only`.

    Raises:
        InputError: something is missing or wrong; the message says what.
    """
    _check_options(args)
    cfg, own_data = load_config(args.config_file, args.opts or ())
    _check_output_dir(cfg.train.output_dir)
    _check_datasets(cfg, training=not args.eval_only)
    if cfg.train.wandb and not args.eval_only:
        import_wandb()
    if cfg.train.early_stopping.patience and not can_evaluate(cfg):
        raise InputError("train.early_stopping needs dataloader.test and dataloader.evaluator.")
    if args.eval_only and not can_evaluate(cfg):
        raise InputError("--eval-only needs dataloader.test and dataloader.evaluator.")
    last = _last_checkpoint(cfg.train.output_dir)
    resume = args.resume and not args.eval_only and bool(last)
    if args.eval_only:
        checkpoint = _evaluated(cfg, last, args.opts or ())
    else:
        checkpoint = cfg.train.init_checkpoint
    checkpoint = _found(last if resume else checkpoint)
    return Job(cfg, own_data, checkpoint, resume, choose_device(cfg.train.device))


def can_evaluate(cfg: DictConfig) -> bool:
    """Whether a config has what an evaluation needs; `dataloader.evaluator=null` says no."""
    return all(cfg.dataloader.get(key) is not None for key in ("test", "evaluator"))


def _check_options(args: argparse.Namespace) -> None:
    misplaced = [opt for opt in args.opts or () if opt.startswith("-")]
    if misplaced:
        raise InputError(f"Options come before key=value: move {misplaced[0]} forward.")


def _check_output_dir(path: str) -> None:
    if not path:
        raise InputError("train.output_dir is empty: expected a folder.")
    existing = os.path.abspath(path)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        raise InputError(f"train.output_dir={path}: {existing} is no folder.")
    if not os.access(existing, os.W_OK):
        raise InputError(f"train.output_dir={path}: no permission to write in {existing}.")


def _check_datasets(cfg: DictConfig, *, training: bool) -> None:
    for split, needed in (("train", training), ("test", can_evaluate(cfg))):
        loader = cfg.dataloader.get(split)
        if needed and loader is None:
            raise InputError(f"dataloader.{split} is missing from the config.")
        if needed and isinstance(loader.get("dataset"), DictConfig):
            _check_dataset(loader.dataset)


def _check_dataset(node: DictConfig) -> None:
    """Check the two kinds of data sets that are known; another one has to check itself."""
    if target_of(node) is refuse_missing_dataset:
        instantiate(node)
    json_file, names = node.get("json_file"), node.get("names")
    if json_file is not None:
        if not os.path.isfile(json_file):
            raise InputError(f"The annotations of data set {names} are missing: {json_file}")
    elif names is not None:
        for name in names if isinstance(names, list | tuple | ListConfig) else [names]:
            check_registered_dataset(name)


def _last_checkpoint(output_dir: str) -> str:
    try:
        with open(os.path.join(output_dir, "last_checkpoint")) as file:
            return os.path.join(output_dir, file.read().strip())
    except FileNotFoundError:
        return ""


def _evaluated(cfg: DictConfig, last: str, overrides: Sequence[str]) -> str:
    """Choose the checkpoint to evaluate.

    `train.init_checkpoint` names it on the command line. In a config it says how training began,
    with the weights of a classifier or of a detector of other data, and a run's own come first.
    """
    given, output_dir = cfg.train.init_checkpoint, cfg.train.output_dir
    if is_backbone_only(given):
        given = ""
    if given and any(text.lstrip("+").startswith("train.init_checkpoint=") for text in overrides):
        return given
    final = os.path.join(output_dir, "model_final.pth")
    if os.path.isfile(final):
        return final
    if last or given:
        return last or given
    raise InputError(
        f"There is nothing to evaluate: {output_dir} has no checkpoint. Pass "
        "train.init_checkpoint=FILE, or train.output_dir of a run."
    )


def _found(checkpoint: str) -> str:
    """Download a checkpoint now if need be, in one process of each machine."""
    if checkpoint and comm.get_local_rank() == 0:
        local_file(checkpoint)
    return checkpoint


def choose_device(name: str) -> torch.device:
    """Return the device that `train.device` means; "auto" is a GPU where there is one.

    Raises:
        InputError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"train.device is {name!r}: expected auto, cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"train.device is {name!r}, but torch finds no GPU.")
    if device.type != "cuda" and comm.get_world_size() > 1 and dist.get_backend() == "nccl":
        raise InputError("Several processes on the CPU need CUDA_VISIBLE_DEVICES= (empty).")
    return device
