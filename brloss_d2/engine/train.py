"""Train or evaluate what a config describes."""

import argparse
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import create_ddp_model, default_setup, default_writers, hooks
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn

from brloss_d2.checkpoint import Checkpointer
from brloss_d2.data import write_categories
from brloss_d2.engine.evaluate import EvalHook, evaluate, results_table
from brloss_d2.engine.prepare import Job, can_evaluate, prepare
from brloss_d2.engine.processes import in_agreement
from brloss_d2.engine.trainer import Trainer

logger = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> None:
    """Do what a command line asks for, in one process of possibly several.

    Args:
        args: the result of `detectron2.engine.default_argument_parser`.

    Raises:
        InputError: a mistake of the user, found before anything was written where possible.
        NonFiniteLossError: training has diverged.
    """
    job = in_agreement(lambda: prepare(args))
    _set_up(job, args)
    if args.eval_only:
        _evaluate(job)
    else:
        _train(job)


def _set_up(job: Job, args: argparse.Namespace) -> None:
    """Start logging, write config.yaml, and seed."""
    # Without its config_file detectron2 does not log that file, which the effective config repeats.
    default_setup(job.cfg, argparse.Namespace(eval_only=args.eval_only))
    _hush_detectron2()
    setup_logger(job.output_dir, distributed_rank=comm.get_rank(), name="brloss_d2")
    logger.info("Command line: %s", shlex.join(sys.argv))
    if job.cfg.train.num_threads:
        torch.set_num_threads(job.cfg.train.num_threads)
    if comm.is_main_process():
        with open(os.path.join(job.output_dir, "config.yaml"), encoding="utf-8") as file:
            logger.info("Effective config:\n%s", file.read())
    if args.resume and not args.eval_only and not job.resume:
        logger.warning("Nothing to resume in %s: starting anew.", job.output_dir)
    if job.own_data is not None:
        if comm.is_main_process():
            write_categories(job.output_dir, job.own_data.val.categories)
        logger.info("Own data, %d classes:\n%s", job.own_data.num_classes, job.own_data)


def _hush_detectron2() -> None:
    """Silence what recent versions of torch say of detectron2's code; no user can mend it."""
    warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release")
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)


def _evaluate(job: Job) -> None:
    def load() -> nn.Module:
        model = _build_model(job)
        Checkpointer(model, strict=True).load(job.checkpoint)
        return model

    _report(job, evaluate(job.cfg, in_agreement(load)), job.checkpoint)


def _train(job: Job) -> None:
    model = _build_model(job)
    trainer = _build_trainer(job, model)
    results: dict[str, Any] = {}
    checkpointer = Checkpointer(model, job.output_dir, strict=job.resume, trainer=trainer)
    trainer.register_hooks(_hooks(job, checkpointer, lambda: _keep(results, job, model)))
    start = in_agreement(lambda: _load(job, checkpointer))
    max_iter = job.cfg.train.max_iter
    if start < max_iter:
        trainer.model = _distributed(job, model)
        trainer.train(start, max_iter)
    else:
        logger.info("Training has finished before: %d of %d iterations.", start, max_iter)
        if can_evaluate(job.cfg):
            _keep(results, job, model)
    _report(job, results, checkpointer.get_checkpoint_file())


def _build_model(job: Job) -> nn.Module:
    model = instantiate(job.cfg.model).to(job.device)
    size = sum(parameter.numel() for parameter in model.parameters())
    logger.info("%s with %.1f M parameters on %s", type(model).__name__, size / 1e6, job.device)
    return model


def _build_trainer(job: Job, model: nn.Module) -> Trainer:
    cfg, train = job.cfg, job.cfg.train
    cfg.optimizer.params.model = model
    return Trainer(
        model,
        instantiate(cfg.dataloader.train),
        instantiate(cfg.optimizer),
        amp_dtype=getattr(torch, train.amp.dtype) if train.amp.enabled else None,
        clip_grad_norm=train.clip_grad_norm,
    )


def _hooks(
    job: Job, checkpointer: Checkpointer, evaluation: Callable[[], Mapping[str, Any]]
) -> list[hooks.HookBase | None]:
    train = job.cfg.train
    is_main = comm.is_main_process()
    saver = hooks.PeriodicCheckpointer(checkpointer, **train.checkpointer)
    return [
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=instantiate(job.cfg.lr_multiplier)),
        saver if is_main else None,
        EvalHook(train.eval_period, evaluation) if can_evaluate(job.cfg) else None,
        # Last, so that it writes what the others have found.
        hooks.PeriodicWriter(default_writers(job.output_dir, train.max_iter), train.log_period)
        if is_main
        else None,
    ]


def _load(job: Job, checkpointer: Checkpointer) -> int:
    """Load weights, and the state of training if resuming; return the iteration to start with."""
    rest = checkpointer.load(job.checkpoint, None if job.resume else [])
    return rest.get("iteration", -1) + 1 if job.resume else 0


def _distributed(job: Job, model: nn.Module) -> nn.Module:
    ddp = dict(job.cfg.train.ddp)
    if job.device.type != "cuda":
        ddp["device_ids"] = None  # detectron2 would name a GPU
    return create_ddp_model(model, **ddp)


def _keep(results: dict[str, Any], job: Job, model: nn.Module) -> dict[str, Any]:
    """Evaluate and leave the numbers in `results` for the end of the run."""
    results.clear()
    results.update(evaluate(job.cfg, model))
    return results


def _report(job: Job, results: Mapping[str, Any], checkpoint: str) -> None:
    if not comm.is_main_process():
        return
    table = f"Results:\n{results_table(results)}\n" if results else ""
    log = os.path.join(job.output_dir, "log.txt")
    logger.info("Done.\n%sCheckpoint: %s\nLog:        %s", table, checkpoint, log)
