"""Evaluate a model and show the numbers."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from detectron2.config import instantiate
from detectron2.engine import hooks
from detectron2.evaluation import inference_on_dataset
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from tabulate import tabulate
from torch import nn

from brloss_d2.engine.hooks.ema import EMA
from brloss_d2.engine.randomness import preserved_rng

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """What wants to know of every evaluation, in every process."""

    def after_evaluation(self, metrics: Mapping[str, float], iteration: int) -> None:
        """Take the numbers, as `task/name`, that the weights after an iteration have got."""


class EvalHook(hooks.EvalHook):
    """detectron2's hook, which tells others of the numbers.

    A failure in the last iteration is not followed by an evaluation, for which the other processes
    would not come. One that was cut off is done again when the run is resumed. Evaluations leave no
    trace in the random numbers of training.
    """

    def __init__(
        self,
        eval_period: int,
        eval_function: Callable[[], Mapping[str, Any]],
        listeners: Sequence[Listener] = (),
    ):
        """
        Args:
            eval_period: iterations between evaluations; 0 for the one after the last alone.
            eval_function: returns task -> metric -> number, in the first process at least.
            listeners: told in this order, in every process.
        """
        super().__init__(eval_period, eval_function)
        self.listeners = listeners
        self._done: int | None = None  # iterations trained before the latest evaluation

    def before_train(self) -> None:
        start = self.trainer.start_iter
        due = self._period > 0 and start > 0 and start % self._period == 0
        if due and self._done is not None and self._done < start:
            logger.info("Evaluating after iteration %d, which the run had no time for.", start - 1)
            self.trainer.storage.iter = start - 1
            self._do_eval()
            self.trainer.storage.iter = start

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()

    def state_dict(self) -> dict[str, Any]:
        return {"done": self._done or 0}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._done = state["done"]

    def _do_eval(self) -> None:
        with preserved_rng():
            results = self._func()
        metrics = comm.all_gather(flatten_results_dict(results))[0]  # the others have none
        self.trainer.storage.put_scalars(**metrics, smoothing_hint=False)
        self._done = self.trainer.storage.iter
        if self.trainer.iter < self.trainer.max_iter:
            self._done += 1
        for listener in self.listeners:
            listener.after_evaluation(metrics, self._done - 1)


def evaluate(cfg: DictConfig, model: nn.Module, ema: EMA | None = None) -> dict[str, Any]:
    """Run a model over `dataloader.test` and return what `dataloader.evaluator` finds.

    Args:
        cfg: the effective config.
        model: what to evaluate.
        ema: if given, its averaged weights are evaluated as well, as task "ema".

    Returns:
        Task -> metric -> number, in percent for AP; empty but in the main process.
    """
    results = _evaluate(cfg.dataloader, model)
    if ema is not None:
        with ema.applied(), _folder_inside(cfg.dataloader.evaluator, "ema"):
            averaged = _evaluate(cfg.dataloader, model)
        results.update({"ema": averaged} if averaged else {})
    return results


def _evaluate(dataloader: DictConfig, model: nn.Module) -> dict[str, Any]:
    loader = instantiate(dataloader.test)  # before the evaluator, which reads its metadata
    return inference_on_dataset(model, loader, instantiate(dataloader.evaluator))


@contextmanager
def _folder_inside(evaluator: DictConfig, name: str) -> Iterator[None]:
    """Leave alone the files that an evaluator writes of other weights."""
    if not evaluator.get("output_dir"):
        yield
        return
    before = OmegaConf.to_container(evaluator, resolve=False)["output_dir"]
    evaluator.output_dir = os.path.join(evaluator.output_dir, name)
    try:
        yield
    finally:
        evaluator.output_dir = before


def results_table(results: Mapping[str, Any]) -> str:
    """Return a table with a row for each task, without the metrics of single classes."""
    return tabulate(list(_rows(results)), headers="keys", floatfmt=".2f", missingval="-")


def _rows(results: Mapping[str, Any], prefix: str = "") -> Iterator[dict[str, Any]]:
    for task, metrics in results.items():
        name = prefix + task
        metrics = metrics if isinstance(metrics, Mapping) else {task: metrics}
        if any(isinstance(value, Mapping) for value in metrics.values()):
            yield from _rows(metrics, f"{name} ")
        else:
            yield {"": name, **{k: v for k, v in metrics.items() if "-" not in k}}
