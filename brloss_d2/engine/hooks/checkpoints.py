"""Which checkpoints are kept: the latest ones, the best one, the last one."""

import logging
import math
import os
import re
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from brloss_d2.checkpoint import Checkpointer
from brloss_d2.engine.hooks.ema import EMA

logger = logging.getLogger(__name__)
_PERIODIC = re.compile(r"model_(\d{7})\.pth")


class Saver(HookBase):
    """Saves `model_<iteration>.pth` every so often and `model_final.pth` after the last iteration.

    In every process, since the states of all of them are saved. An evaluation comes after saving,
    so that none can lose what has been trained, and has the checkpoint saved again with what it
    found.
    """

    def __init__(
        self, checkpointer: Checkpointer, *, period: int, max_to_keep: int, ema: EMA | None = None
    ):
        """
        Args:
            checkpointer: saves the trainer too.
            period: iterations between checkpoints, >= 1.
            max_to_keep: how many of the latest to keep beside the final one, >= 1.
            ema: has its weights saved beside the final ones, as `model_final_ema.pth`.
        """
        self.checkpointer, self.period, self.max_to_keep = checkpointer, period, max_to_keep
        self.ema = ema
        self._kept: list[str] = []
        self._names: list[str] = []

    def before_train(self) -> None:
        if comm.is_main_process() and self.trainer.start_iter > 0:
            names = sorted(filter(_PERIODIC.fullmatch, os.listdir(self.checkpointer.save_dir)))
            start = self.trainer.start_iter
            self._kept = [name for name in names if int(name[6:13]) < start]

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        self._names = [f"model_{self.trainer.iter:07d}"] if next_iter % self.period == 0 else []
        if next_iter == self.trainer.max_iter:
            self._names.append("model_final")
        self._save()

    def after_evaluation(self, metrics: Mapping[str, float], iteration: int) -> None:
        """Save the checkpoint of this iteration again, if there is one."""
        self._save()

    def after_train(self) -> None:
        if self.trainer.stop_reason:  # not after an exception, for which not all processes come
            name = "model_final" if self.trainer.is_finished else f"model_{self.trainer.iter:07d}"
            if name not in self._names:
                self._names = [name]
                self._save()

    def _save(self) -> None:
        # Up to the last iteration: the trainer counts on after it.
        iteration = min(self.trainer.iter, self.trainer.max_iter - 1)
        for name in self._names:
            self.checkpointer.save(name, iteration=iteration)
            if name == "model_final" and self.ema:
                with self.ema.applied():
                    self.checkpointer.save_weights("model_final_ema", iteration=iteration)
            elif comm.is_main_process():
                self._forget(f"{name}.pth")

    def _forget(self, name: str) -> None:
        if not _PERIODIC.fullmatch(name):
            return
        self._kept = [*(kept for kept in self._kept if kept != name), name]
        for old in self._kept[: -self.max_to_keep]:
            path = os.path.join(self.checkpointer.save_dir, old)
            if os.path.exists(path):
                os.remove(path)
        self._kept = self._kept[-self.max_to_keep :]


class BestCheckpointer(HookBase):
    """Keeps the weights with the best value of a metric so far in `model_best.pth`.

    Unlike detectron2's, it remembers the best over a restart and leaves alone from which checkpoint
    training resumes. A metric of the averaged weights keeps those.
    """

    def __init__(
        self, checkpointer: Checkpointer, metric: str, mode: str = "max", ema: EMA | None = None
    ):
        """
        Args:
            checkpointer: for the weights.
            metric: `task/name`, such as "bbox/AP" or "ema/bbox/AP"; not a number is no value.
            mode: "max" or "min".
            ema: the averaged weights.
        """
        self.checkpointer, self.metric, self.mode, self.ema = checkpointer, metric, mode, ema
        self.best: float | None = None
        self.best_iteration = -1

    def after_evaluation(self, metrics: Mapping[str, float], iteration: int) -> None:
        """Save if the metric is better; the same numbers in every process."""
        value = metrics.get(self.metric)
        if value is None:
            self._explain(metrics)
        elif not math.isnan(value) and self._is_better(value):
            logger.info("Best %s so far: %.3f, in model_best.pth", self.metric, value)
            self.best, self.best_iteration = value, iteration
            averaged = self.ema is not None and self.metric.startswith("ema/")
            with self.ema.applied() if averaged else nullcontext():
                self.checkpointer.save_weights(
                    "model_best", iteration=iteration, metric=self.metric, value=value
                )
        elif self.best is not None:
            logger.info(
                "%s is %.3f; best was %.3f at iteration %d",
                *(self.metric, value, self.best, self.best_iteration),
            )

    def state_dict(self) -> dict[str, Any]:
        return {"metric": self.metric, "best": self.best, "iteration": self.best_iteration}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["metric"] == self.metric:
            self.best, self.best_iteration = state["best"], state["iteration"]

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return True
        return value > self.best if self.mode == "max" else value < self.best

    def _explain(self, metrics: Mapping[str, float]) -> None:
        names = ", ".join(name for name in metrics if "-" not in name) or "no metrics"
        logger.info(
            "train.best_metric=%s is not among what evaluation gives (%s): no best checkpoint.",
            *(self.metric, names),
        )


class EarlyStopping(HookBase):
    """Ends training when a number of evaluations have brought nothing better.

    Every process sees the same numbers, hence all end together.
    """

    def __init__(self, best: BestCheckpointer, patience: int):
        """
        Args:
            best: knows what is better; asked after it has seen an evaluation.
            patience: evaluations in a row without a better value, >= 1.
        """
        self.best, self.patience = best, patience
        self.waited = 0

    @property
    def is_over(self) -> bool:
        """Whether patience is at an end."""
        return self.waited >= self.patience

    def after_evaluation(self, metrics: Mapping[str, float], iteration: int) -> None:
        """Count an evaluation."""
        if self.best.metric not in metrics:
            return
        self.waited = 0 if self.best.best_iteration == iteration else self.waited + 1
        if self.is_over and self.trainer.iter < self.trainer.max_iter:
            self.trainer.stop(
                f"No better {self.best.metric} in {self.waited} evaluations "
                "(train.early_stopping.patience)",
                finished=True,
            )

    def state_dict(self) -> dict[str, Any]:
        return {"waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.waited = state["waited"]
