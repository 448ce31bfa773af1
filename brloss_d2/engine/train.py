"""Training and evaluation of the model that a config describes."""

import argparse
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import create_ddp_model, default_setup, hooks
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn

from brloss_d2.checkpoint import Checkpointer
from brloss_d2.data import write_categories
from brloss_d2.engine.data_order import ResumableLoader
from brloss_d2.engine.hooks.checkpoints import BestCheckpointer, EarlyStopping, Saver
from brloss_d2.engine.hooks.ema import EMA
from brloss_d2.engine.hooks.evaluation import EvalHook, evaluate, results_table
from brloss_d2.engine.hooks.run_state import RunState
from brloss_d2.engine.hooks.schedule import ScheduleGuard, scale_lr
from brloss_d2.engine.hooks.signals import StopSignals
from brloss_d2.engine.hooks.writers import History, PeriodicWriter, ProgressBar
from brloss_d2.engine.launch import in_agreement
from brloss_d2.engine.prepare import Job, can_evaluate, prepare
from brloss_d2.engine.randomness import make_deterministic, seed_run, seeded
from brloss_d2.engine.trainer import Trainer

logger = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> None:
    """Train or evaluate as a command line says, in one process of possibly several.

    Exits with 128 + the number of the signal if a signal has stopped training.

    Args:
        args: options of the command line: `config_file`, `opts`, `resume` and `eval_only`.

    Raises:
        InputError: a mistake of the user, found before anything is written if possible.
        NonFiniteLossError: training has diverged.
    """
    job = in_agreement(lambda: prepare(args))
    _set_up(job, args)
    if args.eval_only:

        def load() -> nn.Module:
            model = _build_model(job)
            Checkpointer(model, strict=True).load(job.checkpoint)
            return model

        _report(job, evaluate(job.cfg, in_agreement(load)), job.checkpoint)
    else:
        _train(job)


def _set_up(job: Job, args: argparse.Namespace) -> None:
    """Start logging, write config.yaml, and set up torch."""
    # Without config_file detectron2 does not log that file, which the effective config repeats.
    default_setup(job.cfg, argparse.Namespace(eval_only=args.eval_only))
    # Warnings of recent torch about detectron2's code, which no user can fix.
    warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release")
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    setup_logger(job.cfg.train.output_dir, distributed_rank=comm.get_rank(), name="brloss_d2")
    logger.info("Command line: %s", shlex.join(sys.argv))
    if job.cfg.train.deterministic:
        make_deterministic()
    if job.cfg.train.tf32:
        torch.set_float32_matmul_precision("high")
    if job.cfg.train.num_threads:
        torch.set_num_threads(job.cfg.train.num_threads)
    if comm.is_main_process():
        with open(os.path.join(job.cfg.train.output_dir, "config.yaml"), encoding="utf-8") as file:
            logger.info("Effective config:\n%s", file.read())
    if args.resume and not args.eval_only and not job.resume:
        logger.warning("Nothing to resume in %s: starting a new run.", job.cfg.train.output_dir)
    if job.custom_data is not None:
        if comm.is_main_process():
            write_categories(job.cfg.train.output_dir, job.custom_data.categories)
        logger.info("Custom dataset, %d classes:\n%s", job.custom_data.num_classes, job.custom_data)


def _build_model(job: Job) -> nn.Module:
    model = instantiate(job.cfg.model).to(job.device)
    size = sum(parameter.numel() for parameter in model.parameters())
    logger.info("%s with %.1f M parameters on %s", type(model).__name__, size / 1e6, job.device)
    return model


def _train(job: Job) -> None:
    run = _build_run(job)
    trainer = run.trainer
    start = in_agreement(lambda: _load(job, run))
    max_iter = job.cfg.train.max_iter
    if start < max_iter and not (run.early_stopping and run.early_stopping.is_over):
        with seeded((run.state.seed,)):  # samplers draw their seed
            loader = ResumableLoader(instantiate(job.cfg.dataloader.train), run.state.seed)
        trainer.data_loader = run.state.track(loader)
        # detectron2 would name a GPU on the CPU too, and not the only one that srun shows.
        devices = [torch.cuda.current_device()] if job.device.type == "cuda" else None
        trainer.model = create_ddp_model(run.model, device_ids=devices, **job.cfg.train.ddp)
        trainer.train(start, max_iter)
    else:
        logger.info("Training has finished before: %d of %d iterations.", start, max_iter)
        if can_evaluate(job.cfg):
            run.evaluate()
    if trainer.stop_reason:
        logger.info(
            "%s: stopped after %d of %d iterations.%s",
            *(trainer.stop_reason, trainer.iter + 1, max_iter),
            "" if trainer.is_finished else " The same command with --resume continues.",
        )
    _report(job, run.results, run.checkpointer.get_checkpoint_file())
    if trainer.stop_reason and not trainer.is_finished:
        comm.synchronize()  # the launcher ends all processes as soon as one exits
        sys.exit(128 + run.signals.received)


@dataclass
class _Run:
    """Parts of a training run."""

    job: Job
    model: nn.Module
    trainer: Trainer
    checkpointer: Checkpointer
    state: RunState
    ema: EMA | None
    signals: StopSignals
    best: BestCheckpointer | None = None
    early_stopping: EarlyStopping | None = None
    results: dict[str, Any] = field(default_factory=dict)

    def evaluate(self) -> dict[str, Any]:
        """Evaluate, and keep the results for the end of the run."""
        self.results.clear()
        self.results.update(evaluate(self.job.cfg, self.model, self.ema))
        return self.results


def _build_run(job: Job) -> _Run:
    cfg, train = job.cfg, job.cfg.train
    seed = seed_run(train.seed)
    model = _build_model(job)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    scale_lr(optimizer, cfg)
    trainer = Trainer(
        model,
        (),  # set once the position to start at is known
        optimizer,
        amp_dtype=getattr(torch, train.amp.dtype) if train.amp.enabled else None,
        clip_grad_norm=train.clip_grad_norm,
        accumulate=train.accumulate,
    )
    run = _Run(
        job,
        model,
        trainer,
        Checkpointer(model, job.cfg.train.output_dir, strict=job.resume, trainer=trainer),
        RunState(model, seed),
        EMA(model, train.ema.decay) if train.ema.enabled else None,
        StopSignals(),
    )
    if train.best_metric and can_evaluate(cfg):
        run.best = BestCheckpointer(run.checkpointer, train.best_metric, train.best_mode, run.ema)
        if train.early_stopping.patience:
            run.early_stopping = EarlyStopping(run.best, train.early_stopping.patience)
    trainer.register_hooks(_hooks(run))
    return run


def _hooks(run: _Run) -> list[hooks.HookBase | None]:
    cfg, train = run.job.cfg, run.job.cfg.train
    is_main = comm.is_main_process()
    scheduler = instantiate(cfg.lr_multiplier)
    saver = Saver(run.checkpointer, **train.checkpointer, ema=run.ema)
    listeners = [hook for hook in (run.best, run.early_stopping, saver) if hook is not None]
    return [
        hooks.IterationTimer(),
        History(),
        ScheduleGuard.from_config(cfg, run.trainer.optimizer, scheduler),
        hooks.LRScheduler(scheduler=scheduler),
        run.ema,
        saver,
        EvalHook(train.eval_period, run.evaluate, listeners) if can_evaluate(cfg) else None,
        run.best,
        run.early_stopping,
        run.state,
        run.signals,
        ProgressBar(sys.stdout) if is_main and sys.stdout.isatty() else None,
        # Last, so that it writes the metrics of the others.
        PeriodicWriter(cfg) if is_main else None,
    ]


def _load(job: Job, run: _Run) -> int:
    """Load weights, and the state of training if resuming; return the iteration to start with."""
    rest = run.checkpointer.load(job.checkpoint, None if job.resume else [])
    if not job.resume:
        logger.info("Seed: %d", run.state.seed)
        return 0
    start = rest.get("iteration", -1) + 1
    logger.info(
        "Resuming %s: %d of %d iterations done, seed %d%s%s.",
        *(job.checkpoint, start, job.cfg.train.max_iter, run.state.seed),
        f", average of {run.ema.updates} steps" if run.ema else "",
        f", best {run.best.metric} {run.best.best}" if run.best else "",
    )
    return start


def _report(job: Job, results: Mapping[str, Any], checkpoint: str) -> None:
    """Log the results and where the files of the run are."""
    if comm.is_main_process():
        table = f"Results:\n{results_table(results)}\n" if results else ""
        log = os.path.join(job.cfg.train.output_dir, "log.txt")
        logger.info("Done.\n%sCheckpoint: %s\nLog:        %s", table, checkpoint, log)
