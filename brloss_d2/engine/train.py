"""Training and evaluation of the model that a config describes."""

import argparse
import copy
import logging
import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import create_ddp_model, hooks
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from torch import nn

from brloss_d2.checkpoint import Checkpointer
from brloss_d2.data import write_categories
from brloss_d2.engine.classes import check_classes
from brloss_d2.engine.data_order import ResumableLoader
from brloss_d2.engine.folder import ANALYSIS, DATA_SHEET, RUN_FILES, reserved, set_aside
from brloss_d2.engine.hooks.checkpoints import BestCheckpointer, EarlyStopping, Saver
from brloss_d2.engine.hooks.ema import EMA
from brloss_d2.engine.hooks.evaluation import EvalHook, Evaluation, check_results, results_table
from brloss_d2.engine.hooks.run_state import RunState, describe_config, describe_data
from brloss_d2.engine.hooks.schedule import ScheduleGuard, scale_lr
from brloss_d2.engine.hooks.signals import StopSignals
from brloss_d2.engine.hooks.writers import History, PeriodicWriter, ProgressBar
from brloss_d2.engine.launch import in_agreement
from brloss_d2.engine.logs import set_up_logging
from brloss_d2.engine.optimizer import freeze, log_rates
from brloss_d2.engine.prepare import Job, can_evaluate, prepare
from brloss_d2.engine.randomness import make_deterministic, seed_run, seeded
from brloss_d2.engine.speed import apply_speed_keys
from brloss_d2.engine.trainer import Trainer
from brloss_d2.errors import InputError
from brloss_d2.utils.files import replacing
from brloss_d2.utils.text import counted

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
    with ExitStack() as stack:
        if not args.eval_only:
            folder = reserved(job.cfg.train.output_dir) if comm.is_main_process() else nullcontext()
            in_agreement(lambda: stack.enter_context(folder))
        in_agreement(lambda: _set_up(job, args))
        if not args.eval_only:
            _train(job)
            return

        def load() -> tuple[nn.Module, Evaluation]:
            evaluation = Evaluation(job.cfg)
            model = _build_model(job)
            content = Checkpointer(model, strict=True).load(job.checkpoint)
            learned = content.get("classes", ())
            check_classes(job.checkpoint, job.classes, must_agree=True, learned=learned)
            return model, evaluation

        # What belongs to a training in the folder stays as it is.
        model, evaluation = in_agreement(load)
        results = evaluation(model)
        _report(job, results, job.checkpoint)
        in_agreement(lambda: check_results(results, job.cfg.train.expected_results))


def _set_up(job: Job, args: argparse.Namespace) -> None:
    """Start logging and set up torch."""
    rank, output_dir, seed = comm.get_rank(), job.cfg.train.output_dir, job.cfg.train.seed
    try:
        set_up_logging(output_dir)
    except OSError as error:
        text = f"train.output_dir={output_dir}: cannot write {error.filename}: {error.strerror}."
        raise InputError(text) from error
    logger.debug("Command line: %s", shlex.join(sys.argv))
    logger.debug("Environment:\n%s", collect_env_info())
    processes = counted(comm.get_world_size(), "process")
    logger.info("%s. Details: %s", processes, os.path.join(output_dir, "log.txt"))
    seed_all_rng(None if seed < 0 else seed + rank)
    torch.backends.cudnn.benchmark = job.cfg.train.cudnn_benchmark and not args.eval_only
    if job.cfg.train.deterministic:
        make_deterministic()
    if job.cfg.train.tf32:
        torch.set_float32_matmul_precision("high")
    threads, cores = job.cfg.train.num_threads, os.cpu_count() or 1
    if threads > cores:
        text = "train.num_threads=%d: this machine has %s; one thread for each is used."
        logger.warning(text, threads, counted(cores, "CPU core"))
    if threads:
        torch.set_num_threads(min(threads, cores))
    if args.resume and not args.eval_only and not job.resume:
        logger.warning("Nothing to resume in %s: starting a new run.", output_dir)
    data = job.custom_data
    if data is not None:
        data.write_split()
        logger.debug("Custom dataset:\n%s", data)
        classes = counted(data.num_classes, "class")
        logger.info("Custom dataset, %s:\n%s", classes, data.table(most_classes=4))


def _build_model(job: Job) -> nn.Module:
    model = instantiate(job.cfg.model).to(job.device)
    size = sum(parameter.numel() for parameter in model.parameters())
    logger.info(
        "%s with %.1f M parameters on %s. Weights: %s",
        *(type(model).__name__, size / 1e6, job.device, job.checkpoint or "random"),
    )
    return model


def _train(job: Job) -> None:
    run = _build_run(job)
    trainer, max_iter = run.trainer, job.cfg.train.max_iter
    start = in_agreement(lambda: _load(job, run))
    trains = start < max_iter and not (run.early_stopping and run.early_stopping.is_over)
    if trains:
        with seeded((run.state.seed,)):  # samplers draw their seed
            loader = ResumableLoader(instantiate(job.cfg.dataloader.train), run.state.seed)
        trainer.data_loader = in_agreement(lambda: run.state.track(loader))
    if can_evaluate(job.cfg):
        # A mistake in it is better known now than after the training.
        run.evaluation = in_agreement(lambda: Evaluation(job.cfg))
        in_agreement(run.evaluation.check)
    if trains and comm.is_main_process():
        _begin(job)
    if trains or (start == max_iter and not run.is_complete()):
        # detectron2 would name a GPU on the CPU too, and not the only one that srun shows.
        devices = [torch.cuda.current_device()] if job.device.type == "cuda" else None
        trainer.model = create_ddp_model(run.model, device_ids=devices, **job.cfg.train.ddp)
        trainer.train(start, max_iter)
    else:
        logger.info("Training has finished before: %d of %d iterations.", start, max_iter)
        if run.evaluation:
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
    in_agreement(lambda: check_results(run.results, job.cfg.train.expected_results))


def _begin(job: Job) -> None:
    """Write what describes the run, now that nothing is known to be wrong with it."""
    folder = job.cfg.train.output_dir
    target = set_aside(folder, ANALYSIS if job.resume else RUN_FILES)
    # Weights of the earlier run: the path that they had will be that of the new ones.
    initial = job.cfg.train.init_checkpoint
    moved = target and os.path.join(target, os.path.relpath(initial or folder, folder))
    was, now = (str(path).partition("?")[0] for path in (initial, moved))
    if not job.resume and os.path.isfile(now) and not os.path.exists(was):
        job.cfg.train.init_checkpoint = moved
    if job.categories is not None:
        write_categories(folder, job.categories)
    file_name = os.path.join(folder, "config.yaml")
    with replacing(file_name) as temporary:
        LazyConfig.save(job.cfg, temporary)
    with open(file_name, encoding="utf-8") as file:
        logger.debug("Effective config, in %s:\n%s", file_name, file.read())
    if job.cfg.train.show_data and job.custom_data is not None and not job.resume:
        _show_data(job, os.path.join(folder, DATA_SHEET))


def _show_data(job: Job, path: str) -> None:
    """Draw the training data as the model gets them; without a picture the training goes on."""
    # Imports matplotlib, which nothing else in a training needs.
    from brloss_d2.engine.data_sheet import can_be_shown, look_at_data, note_on_sizes
    from brloss_d2.plotting.data_sheet import draw_data_sheet

    if not can_be_shown(job.cfg):
        return
    try:
        sheet = look_at_data(job.cfg, job.classes)
        draw_data_sheet(sheet, path)
    except InputError as error:
        logger.warning("%s is not drawn: %s", path, error)
        return
    logger.info("Training data as the model gets them: %s", path)
    if note := note_on_sizes(sheet):
        logger.warning(note)


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
    eval_hook: EvalHook | None = None
    evaluation: Evaluation | None = None
    results: dict[str, Any] = field(default_factory=dict)

    def evaluate(self) -> dict[str, Any]:
        """Evaluate, and keep the results for the end of the run."""
        self.results.clear()
        if self.evaluation is not None:
            self.results.update(self.evaluation(self.model, self.ema))
        return self.results

    def is_complete(self) -> bool:
        """Whether the end of a run that has trained enough was not cut off. A collective."""
        file_name = os.path.join(self.checkpointer.save_dir, "model_final.pth")
        has_file = comm.all_gather(os.path.isfile(file_name))[0]
        is_evaluated = not self.eval_hook or self.eval_hook.done >= self.job.cfg.train.max_iter
        return has_file and is_evaluated


def _build_run(job: Job) -> _Run:
    cfg, train = job.cfg, job.cfg.train
    seed = seed_run(train.seed)
    model = _build_model(job)
    freeze(model, train.freeze)
    apply_speed_keys(model, train)
    optimizer_node = copy.deepcopy(cfg.optimizer)  # the config is saved without the model
    optimizer_node.params.model = model
    optimizer = instantiate(optimizer_node)
    scale_lr(optimizer, cfg)
    log_rates(model, optimizer)
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
        Checkpointer(
            model,
            job.cfg.train.output_dir,
            strict=job.resume,
            classes=job.classes,
            trainer=trainer,
        ),
        RunState(model, seed, describe_data(cfg), describe_config(cfg)),
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
    if can_evaluate(cfg):
        listeners = [hook for hook in (run.best, run.early_stopping, saver) if hook is not None]
        run.eval_hook = EvalHook(train.eval_period, run.evaluate, listeners)
    return [
        hooks.IterationTimer(),
        History(),
        ScheduleGuard.from_config(cfg, run.trainer.optimizer, scheduler),
        hooks.LRScheduler(scheduler=scheduler),
        run.ema,
        saver,
        run.eval_hook,
        run.best,
        run.early_stopping,
        run.state,
        run.signals,
        ProgressBar() if is_main else None,
        # Last, so that it writes the metrics of the others.
        PeriodicWriter(cfg) if is_main else None,
    ]


def _load(job: Job, run: _Run) -> int:
    """Load weights, and the state of training if resuming; return the iteration to start with."""
    run.trainer.iter = -1  # until the state of a training is loaded
    try:
        rest = run.checkpointer.load(job.checkpoint, None if job.resume else [])
    except InputError as error:
        if run.state.changes:
            text = f"{error} What is not as the run began: {'; '.join(run.state.changes)}."
            raise InputError(text) from error
        raise
    if job.resume and run.trainer.iter < 0:
        raise InputError(
            f"Cannot resume {job.checkpoint}: it has weights only. Name a checkpoint of the run in "
            "last_checkpoint, or start a new run from them (train.init_checkpoint=FILE)."
        )
    learned = rest.get("classes", ())
    check_classes(job.checkpoint, job.classes, must_agree=job.resume, learned=learned)
    if not job.resume:
        logger.debug("Seed: %d", run.state.seed)
        return 0
    changes = list(run.state.changes)
    if 0 <= job.cfg.train.seed != run.state.seed:
        changes.append(f"train.seed={job.cfg.train.seed} is ignored, its seed is {run.state.seed}")
    if changes:
        logger.warning("The run is not resumed as it began: %s.", "; ".join(changes))
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
