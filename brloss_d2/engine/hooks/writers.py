"""Writers of metrics: the terminal, metrics.json, TensorBoard, Weights & Biases."""

import copy
import importlib.util
import json
import logging
import os
import resource
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    EventWriter,
    TensorboardXWriter,
    get_event_storage,
)
from fvcore.common.history_buffer import HistoryBuffer
from omegaconf import DictConfig, OmegaConf

from brloss_d2.engine.logs import progress_bar
from brloss_d2.errors import InputError

logger = logging.getLogger(__name__)
# Values per scalar in a checkpoint: as many as detectron2 takes medians of.
_HISTORY = 20
_MIB = 2**20
# `head/name`, such as roi_head/box_reg_unbalanced; no metric of an evaluation.
_OF_CRITERIA = ("_unbalanced", "/num_positives", "/num_masks", "/pool_size")


class MetricsFile(EventWriter):
    """Writer of metrics.json: one JSON object per line, for each iteration that has metrics.

    Noisy metrics are medians of the last 20 iterations, like detectron2's. A resumed run removes
    the lines after its checkpoint.

    Args:
        path: path of the file, which is opened.
        resume: whether to continue the file of an earlier run, which is renamed otherwise.
        state: result of `state_dict` in the checkpoint; empty for none.
    """

    def __init__(self, path: str, *, resume: bool, state: Mapping[str, int]):
        self.last_write = state.get("last_write", -1)
        if os.path.exists(path):
            if resume:
                size = os.path.getsize(path)
                os.truncate(path, min(state.get("bytes", size), size))
            else:
                os.replace(path, f"{path}.old")
                logger.warning("%s of an earlier run is now %s.old", path, os.path.basename(path))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def write(self) -> None:
        for line in _lines_after(self.last_write):
            self._file.write(json.dumps(line, sort_keys=True) + "\n")
            self.last_write = line["iteration"]
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def state_dict(self) -> dict[str, int]:
        return {"bytes": self._file.tell(), "last_write": self.last_write}


class MetricPrinter(CommonMetricPrinter):
    """detectron2's line of losses and times, and a second line with the metrics of criteria.

    Args:
        max_iter: number of iterations of the training.
        kind_of_loss: function from the name of a loss to the kind under which it is added up in
            the line, for models with dozens of losses; None shows each of them.
    """

    _printed = -1

    def __init__(self, max_iter: int, kind_of_loss: Callable[[str], str] | None = None):
        super().__init__(max_iter)
        self._kind_of_loss = kind_of_loss

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter in (self._max_iter, self._printed):  # training has ended
            return
        self._printed = storage.iter
        with _by_kind(storage, self._kind_of_loss) if self._kind_of_loss else nullcontext():
            super().write()
        latest, values = storage.latest(), storage.latest_with_smoothing_hint()
        recent = [name for name, (_, at) in latest.items() if storage.iter - at < _HISTORY]
        shown = [f"{n}: {values[n][0]:.4g}" for n in recent if n.endswith(_OF_CRITERIA)]
        # detectron2 shows the memory of a GPU itself.
        if not torch.cuda.is_available() and "max_mem_mb" in latest:
            shown.append(f"max_mem: {latest['max_mem_mb'][0]:.0f}M")
        if shown:
            self.logger.info("         %s", "  ".join(shown))


class WandbWriter(EventWriter):
    """Writer of every scalar to Weights & Biases; a resumed run continues the same run there.

    Args:
        cfg: effective config; `train.wandb` is the name of the project.
        resume: whether to continue the run whose id is in the output folder.
        last_write: last iteration that was written before.

    Raises:
        InputError: the package is not installed.
    """

    def __init__(self, cfg: DictConfig, *, resume: bool, last_write: int):
        wandb = import_wandb()
        self._last_write = last_write
        folder = cfg.train.output_dir
        id_file = os.path.join(folder, "wandb_run_id.txt")
        run_id = None
        if resume and os.path.isfile(id_file):
            with open(id_file, encoding="utf-8") as file:
                run_id = file.read().strip()
        self._run = wandb.init(
            project=cfg.train.wandb,
            dir=folder,
            name=os.path.basename(os.path.abspath(folder)),
            config=OmegaConf.to_container(OmegaConf.load(os.path.join(folder, "config.yaml"))),
            id=run_id,
            resume="allow",
        )
        with open(id_file, "w", encoding="utf-8") as file:
            file.write(self._run.id)
        # Their own axis must increase, but a resumed run repeats iterations.
        self._run.define_metric("iteration")
        self._run.define_metric("*", step_metric="iteration")

    def write(self) -> None:
        for line in _lines_after(self._last_write):
            self._run.log(line)
            self._last_write = line["iteration"]

    def close(self) -> None:
        self._run.finish()


class ProgressBar(HookBase):
    """Bar with the remaining time, on terminals, instead of the lines of metrics.

    Other lines of the log appear above it; those of the metrics go to log.txt only.
    """

    def before_train(self) -> None:
        self._bar = progress_bar(self.trainer.max_iter, done=self.trainer.start_iter)

    def after_step(self) -> None:
        if self._bar.disable:
            return
        latest = self.trainer.storage.latest()
        names = {"total_loss": "loss", "lr": "lr"}  # more would leave a terminal no bar
        shown = {text: f"{latest[name][0]:.3g}" for name, text in names.items() if name in latest}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def after_train(self) -> None:
        self._bar.close()


class History(HookBase):
    """Recent metrics in checkpoints, so that a resumed run continues their medians."""

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
        # Largest memory of this process so far: of the GPU if there is one, else of the host.
        if torch.cuda.is_available():
            memory = torch.cuda.max_memory_allocated() / _MIB
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            memory = peak / (_MIB if sys.platform == "darwin" else 1024)
        self.trainer.storage.put_scalar("max_mem_mb", memory, smoothing_hint=False)

    def state_dict(self) -> dict[str, Any]:
        storage: EventStorage = self.trainer.storage
        values = {name: list(h.values())[-_HISTORY:] for name, h in storage.histories().items()}
        return {"hints": dict(storage.smoothing_hints()), "values": values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._loaded = state


class PeriodicWriter(hooks.PeriodicWriter):
    """detectron2's hook with the writers of a config; its checkpoints mark the end of metrics.json.

    Args:
        cfg: effective config.
    """

    def __init__(self, cfg: DictConfig):
        super().__init__([], cfg.train.log_period)
        self.cfg = cfg
        self._metrics_file: MetricsFile
        self._loaded: Mapping[str, int] = {}

    def before_train(self) -> None:
        start, train = self.trainer.start_iter, self.cfg.train
        path = os.path.join(train.output_dir, "metrics.json")
        self._metrics_file = MetricsFile(path, resume=start > 0, state=self._loaded)
        model = getattr(self.trainer.model, "module", self.trainer.model)  # within DDP
        kind_of_loss = getattr(model, "kind_of_loss", None)
        self._writers = [MetricPrinter(train.max_iter, kind_of_loss)]
        if importlib.util.find_spec("tensorboard"):
            # Hides what a run had written after its last checkpoint.
            self._writers.append(TensorboardXWriter(train.output_dir, purge_step=start or None))
        else:
            logger.warning(
                "TensorBoard is not installed: no event files. (pip install tensorboard)"
            )
        if train.wandb:
            last = self._metrics_file.last_write
            self._writers.append(WandbWriter(self.cfg, resume=start > 0, last_write=last))
        self._writers.append(self._metrics_file)
        if start > 0 and start % self._period == 0:  # due after the checkpoint was saved
            for writer in self._writers[1:]:
                writer.write()

    def state_dict(self) -> dict[str, Any]:
        return self._metrics_file.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._loaded = state


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


def _by_kind(storage: EventStorage, kind_of_loss: Callable[[str], str]) -> EventStorage:
    """Return a view of a storage whose recent losses, but the total, are summed by kind."""
    histories: dict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
    sums: dict[str, dict[int, float]] = {}
    for name, history in storage.histories().items():
        if "loss" not in name or name == "total_loss":
            histories[name] = history
            continue
        kind = sums.setdefault(f"{kind_of_loss(name)}_loss", {})
        for value, iteration in history.values()[-_HISTORY:]:
            kind[iteration] = kind.get(iteration, 0.0) + value
    for name, values in sums.items():
        for iteration, value in values.items():
            histories[name].update(value, iteration)
    view = copy.copy(storage)
    view._history = histories
    return view


def _lines_after(last: int) -> list[dict[str, Any]]:
    """Return the metrics of each iteration after the last one that was written."""
    lines: dict[int, dict[str, Any]] = {}
    for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint().items():
        if iteration > last:
            lines.setdefault(iteration, {"iteration": iteration})[name] = value
    return [lines[iteration] for iteration in sorted(lines)]
