"""Checkpoints to keep: the latest ones, the best one, the final one; early stopping."""

import logging
import math
import operator
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
    """Saves `model_<iteration>.pth` periodically and `model_final.pth` after the last iteration.

    To be registered in every process, since the states of all of them are saved. A checkpoint is
    saved before an evaluation, so that no evaluation can lose what has been trained, and again
    after it, with its results.

    Args:
        checkpointer: checkpointer that saves the trainer too.
        period: iterations between checkpoints, >= 1.
        max_to_keep: number of the latest checkpoints to keep next to the final one, >= 1.
        ema: averaged weights to save next to the final ones, as `model_final_ema.pth`.
    """

    def __init__(
        self, checkpointer: Checkpointer, *, period: int, max_to_keep: int, ema: EMA | None = None
    ):
        self.checkpointer, self.period, self.max_to_keep = checkpointer, period, max_to_keep
        self.ema = ema
        self._kept: list[str] = []  # files, the latest one last
        self._names: list[str] = []  # checkpoints of this iteration

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
        if self.trainer.stop_reason:  # not after an exception, which not all processes have
            name = "model_final" if self.trainer.is_finished else f"model_{self.trainer.iter:07d}"
            if name not in self._names:
                self._names = [name]
                self._save()
        elif self.trainer.start_iter >= self.trainer.max_iter:  # the end of the run was cut off
            self._names = ["model_final"]
            self._save()

    def _save(self) -> None:
        # At most the last iteration: the trainer counts on after it.
        iteration = min(self.trainer.iter, self.trainer.max_iter - 1)
        for name in self._names:
            self.checkpointer.save(name, iteration=iteration)
            if name == "model_final":
                if self.ema:
                    with self.ema.applied():
                        self.checkpointer.save_weights("model_final_ema", iteration=iteration)
            elif comm.is_main_process():
                file = f"{name}.pth"
                self._kept = [*(kept for kept in self._kept if kept != file), file]
                for old in self._kept[: -self.max_to_keep]:
                    path = os.path.join(self.checkpointer.save_dir, old)
                    if os.path.exists(path):
                        os.remove(path)
                self._kept = self._kept[-self.max_to_keep :]


class BestCheckpointer(HookBase):
    """Keeps the weights with the best value of a metric so far in `model_best.pth`.

    Unlike detectron2's, it remembers the best value if a run is resumed, and does not change the
    checkpoint that training resumes from.

    Args:
        checkpointer: checkpointer that saves the weights.
        metric: metric as `task/name`, such as "bbox/AP"; "ema/bbox/AP" keeps the averaged weights.
        mode: "max", "min", or "auto", which is "min" for oLRP and its parts.
        ema: averaged weights, if there are any.
    """

    def __init__(
        self, checkpointer: Checkpointer, metric: str, mode: str = "auto", ema: EMA | None = None
    ):
        self.checkpointer, self.metric, self.ema = checkpointer, metric, ema
        if mode == "auto":
            mode = "min" if "/oLRP" in metric else "max"
        self._is_better = {"max": operator.gt, "min": operator.lt}[mode]
        self.best: float | None = None
        self.best_iteration = -1

    def after_evaluation(self, metrics: Mapping[str, float], iteration: int) -> None:
        """Save the weights if the metric, the same number in every process, has improved."""
        value = metrics.get(self.metric)
        if value is None:
            names = ", ".join(name for name in metrics if "-" not in name) or "no metrics"
            logger.info(
                "train.best_metric=%s is not among the results of the evaluation (%s): no best "
                "checkpoint.",
                *(self.metric, names),
            )
        elif not math.isnan(value) and (self.best is None or self._is_better(value, self.best)):
            logger.info("Best %s so far: %.3f, in model_best.pth", self.metric, value)
            self.best, self.best_iteration = value, iteration
            averaged = self.metric.startswith("ema/")
            with self.ema.applied() if self.ema and averaged else nullcontext():
                self.checkpointer.save_weights(
                    "model_best", iteration=iteration, metric=self.metric, value=value
                )
        elif self.best is not None:
            logger.info(
                "%s is %.3f; the best so far is %.3f, of iteration %d",
                *(self.metric, value, self.best, self.best_iteration),
            )

    def state_dict(self) -> dict[str, Any]:
        return {"metric": self.metric, "best": self.best, "iteration": self.best_iteration}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["metric"] == self.metric:
            self.best, self.best_iteration = state["best"], state["iteration"]


class EarlyStopping(HookBase):
    """Ends training after a number of evaluations without a better value.

    Every process has the same metrics, so that all end together.

    Args:
        best: hook that decides what is better; told about an evaluation before this one.
        patience: evaluations in a row without a better value, >= 1.

    Attributes:
        waited: evaluations so far without a better value.
    """

    def __init__(self, best: BestCheckpointer, patience: int):
        self.best, self.patience = best, patience
        self.waited = 0

    @property
    def is_over(self) -> bool:
        """Whether the patience is exhausted."""
        return self.waited >= self.patience

    def after_evaluation(self, metrics: Mapping[str, float], iteration: int) -> None:
        """Count an evaluation, and stop the trainer if the patience is exhausted."""
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
