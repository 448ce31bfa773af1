"""Where the numbers of a run go: the terminal, metrics.json, TensorBoard, Weights & Biases."""

import importlib.util
import json
import logging
import os
import resource
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    EventWriter,
    TensorboardXWriter,
    get_event_storage,
)
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from brloss_d2.errors import InputError

logger = logging.getLogger(__name__)
_PRINTER = "detectron2.utils.events"  # the logger of CommonMetricPrinter
# Values of each scalar that a checkpoint keeps: as many as detectron2 takes medians of.
_HISTORY = 20
_MIB = 2**20


class MetricsFile(EventWriter):
    """Writes metrics.json: a JSON object in each line, for each iteration that has numbers.

    The median of the last 20 iterations where a number is noisy, like detectron2's. A resumed run
    takes back what was written after its checkpoint.
    """

    def __init__(self, path: str):
        self.path = path
        self.last_write = -1
        self._bytes = sys.maxsize
        self._file: TextIO | None = None

    def open(self, *, resume: bool) -> None:
        """Begin to write; the file of an earlier run is renamed unless this one continues it."""
        if resume and os.path.exists(self.path):
            os.truncate(self.path, min(self._bytes, os.path.getsize(self.path)))
        elif os.path.exists(self.path):
            os.replace(self.path, f"{self.path}.old")
            logger.warning("There was a %s: now %s.old", self.path, os.path.basename(self.path))
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115

    def write(self) -> None:
        for line in _lines_after(self.last_write):
            self._file.write(json.dumps(line, sort_keys=True) + "\n")
            self.last_write = line["iteration"]
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def state_dict(self) -> dict[str, int]:
        return {"bytes": self._file.tell(), "last_write": self.last_write}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.last_write, self._bytes = state["last_write"], state["bytes"]


class MetricPrinter(CommonMetricPrinter):
    """detectron2's line of losses and times, and a second one with what a criterion measures."""

    _printed = -1

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter in (self._max_iter, self._printed):  # training has ended
            return
        self._printed = storage.iter
        super().write()
        latest, values = storage.latest(), storage.latest_with_smoothing_hint()
        recent = [name for name, (_, at) in latest.items() if storage.iter - at < _HISTORY]
        shown = [f"{name}: {values[name][0]:.4g}" for name in recent if _is_measured(name)]
        if not torch.cuda.is_available() and "max_mem_mb" in latest:  # detectron2 has it of a GPU
            shown.append(f"max_mem: {latest['max_mem_mb'][0]:.0f}M")
        if shown:
            self.logger.info("         %s", "  ".join(shown))


class WandbWriter(EventWriter):
    """Logs every scalar to Weights & Biases; a resumed run goes on in the same run there."""

    def __init__(self, project: str, cfg: DictConfig, *, resume: bool, last_write: int):
        """
        Args:
            project: its name there.
            cfg: the effective config.
            resume: continue the run whose id lies in the output folder.
            last_write: the last iteration that was written before.

        Raises:
            InputError: the package is not installed.
        """
        wandb = import_wandb()
        self._last_write = last_write
        folder = cfg.train.output_dir
        id_file = os.path.join(folder, "wandb_run_id.txt")
        run_id = None
        if resume and os.path.isfile(id_file):
            with open(id_file, encoding="utf-8") as file:
                run_id = file.read().strip()
        self._run = wandb.init(
            project=project,
            dir=folder,
            name=os.path.basename(os.path.abspath(folder)),
            config=OmegaConf.to_container(OmegaConf.load(os.path.join(folder, "config.yaml"))),
            id=run_id,
            resume="allow",
        )
        with open(id_file, "w", encoding="utf-8") as file:
            file.write(self._run.id)
        # An axis of our own: iterations that a resumed run repeats would go against theirs.
        self._run.define_metric("iteration")
        self._run.define_metric("*", step_metric="iteration")

    def write(self) -> None:
        for line in _lines_after(self._last_write):
            self._run.log(line)
            self._last_write = line["iteration"]

    def close(self) -> None:
        self._run.finish()


class ProgressBar(HookBase):
    """A bar with the time left, while the terminal has nothing else to show of the numbers.

    Other lines of the log appear above it; those of the numbers go to log.txt alone.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream
        self._bar: tqdm | None = None
        self._streams: dict[logging.StreamHandler, TextIO] = {}

    def before_train(self) -> None:
        self._bar = tqdm(
            total=self.trainer.max_iter,
            initial=self.trainer.start_iter,
            file=self.stream,
            dynamic_ncols=True,
            unit="it",
        )
        self._streams = {handler: handler.stream for handler in _console_handlers()}
        for handler, stream in self._streams.items():
            handler.setStream(_AboveBar(stream))
            handler.addFilter(_not_of_printer)

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        names = {"total_loss": "loss", "lr": "lr", "data_time": "data"}
        shown = {text: f"{latest[name][0]:.4g}" for name, text in names.items() if name in latest}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def after_train(self) -> None:
        for handler, stream in self._streams.items():
            handler.removeFilter(_not_of_printer)
            handler.setStream(stream)
        self._bar.close()


class History(HookBase):
    """Keeps the recent numbers in checkpoints, so that medians go on where they were."""

    def __init__(self) -> None:
        self._loaded: Mapping[str, Any] = {}

    def before_train(self) -> None:
        hints = self._loaded.get("hints", {})
        for name, values in self._loaded.get("values", {}).items():
            for value, iteration in values:
                self.trainer.storage.put_scalar(
                    name, value, smoothing_hint=hints[name], cur_iter=iteration
                )

    def after_step(self) -> None:
        self.trainer.storage.put_scalar("max_mem_mb", _memory(), smoothing_hint=False)

    def state_dict(self) -> dict[str, Any]:
        storage: EventStorage = self.trainer.storage
        values = {name: list(h.values())[-_HISTORY:] for name, h in storage.histories().items()}
        return {"hints": dict(storage.smoothing_hints()), "values": values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._loaded = state


class PeriodicWriter(hooks.PeriodicWriter):
    """detectron2's hook with the writers of a config, which keeps its place in metrics.json."""

    def __init__(self, cfg: DictConfig):
        super().__init__([], cfg.train.log_period)
        self.cfg = cfg
        self.metrics_file = MetricsFile(os.path.join(cfg.train.output_dir, "metrics.json"))

    def before_train(self) -> None:
        start = self.trainer.start_iter
        self.metrics_file.open(resume=start > 0)
        others = build_writers(self.cfg, start, self.metrics_file.last_write)
        self._writers = [*others, self.metrics_file]
        if start > 0 and start % self._period == 0:  # due after the checkpoint was saved
            for writer in self._writers[1:]:
                writer.write()

    def state_dict(self) -> dict[str, Any]:
        return self.metrics_file.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.metrics_file.load_state_dict(state)


def build_writers(cfg: DictConfig, start_iter: int, last_write: int) -> list[EventWriter]:
    """Return what writes numbers beside metrics.json.

    Args:
        cfg: the effective config.
        start_iter: the first iteration to come.
        last_write: the last iteration whose numbers were written before.
    """
    writers: list[EventWriter] = [MetricPrinter(cfg.train.max_iter)]
    if importlib.util.find_spec("tensorboard"):
        # What a run had written after its last checkpoint is not shown.
        purge = start_iter or None
        writers.append(TensorboardXWriter(cfg.train.output_dir, purge_step=purge))
    else:
        logger.warning("TensorBoard is not installed: no curves for it. (pip install tensorboard)")
    if cfg.train.wandb:
        resume = start_iter > 0
        writers.append(WandbWriter(cfg.train.wandb, cfg, resume=resume, last_write=last_write))
    return writers


def import_wandb() -> Any:
    """Return the module of Weights & Biases.

    Raises:
        InputError: it is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise InputError("train.wandb needs the package: pip install wandb") from error
    return wandb


def _lines_after(last: int) -> list[dict[str, Any]]:
    """The numbers of each iteration after the last one that was written."""
    lines: dict[int, dict[str, Any]] = {}
    for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint().items():
        if iteration > last:
            lines.setdefault(iteration, {"iteration": iteration})[name] = value
    return [lines[iteration] for iteration in sorted(lines)]


class _AboveBar:
    """A stream that writes whole lines above the bar."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> None:
        with tqdm.external_write_mode(file=self.stream):
            self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()


def _console_handlers() -> Iterable[logging.StreamHandler]:
    for name in ("detectron2", "fvcore", "brloss_d2"):
        for handler in logging.getLogger(name).handlers:
            if getattr(handler, "stream", None) in (sys.stdout, sys.stderr):
                yield handler


def _not_of_printer(record: logging.LogRecord) -> bool:
    return record.name != _PRINTER


def _is_measured(name: str) -> bool:
    """`head/name`, such as roi_head/box_reg_unbalanced; no metric of an evaluation."""
    return name.endswith(("_unbalanced", "/num_positives", "/num_masks", "/pool_size"))


def _memory() -> float:
    """Largest memory of this process so far in MiB: of the GPU, else of the host."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / _MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_MIB if sys.platform == "darwin" else 1024)
