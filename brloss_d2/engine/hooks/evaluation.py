"""Evaluation during and after training, and the table of its results."""

import copy
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from detectron2.config import LazyConfig, instantiate
from detectron2.engine import hooks
from detectron2.evaluation import inference_on_dataset
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from omegaconf import DictConfig
from tabulate import tabulate
from torch import nn

from brloss_d2.checkpoint import fingerprint
from brloss_d2.engine.config.test_augmentation import with_test_augmentation
from brloss_d2.engine.hooks.ema import EMA
from brloss_d2.engine.logs import progress_bar
from brloss_d2.engine.randomness import preserved_rng
from brloss_d2.errors import InputError

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """Hook that is told about every evaluation, in every process."""

    def after_evaluation(self, metrics: Mapping[str, float], iteration: int) -> None:
        """Take the metrics, by `task/name`, of the weights after an iteration."""


class EvalHook(hooks.EvalHook):
    """detectron2's hook, which also tells listeners about the metrics.

    A failure in the last iteration is not followed by an evaluation, which the other processes
    would not join. An evaluation that was interrupted is repeated if the run is resumed.
    Evaluations do not change the random numbers of training.

    Args:
        eval_period: iterations between evaluations; 0 for only one, after the last iteration.
        eval_function: function that returns task -> metric -> number, at least in the main process.
        listeners: hooks to tell, in this order, in every process.

    Attributes:
        done: iterations trained before the latest evaluation; 0 for none so far.
    """

    def __init__(
        self,
        eval_period: int,
        eval_function: Callable[[], Mapping[str, Any]],
        listeners: Sequence[Listener] = (),
    ):
        super().__init__(eval_period, eval_function)
        self.listeners = listeners
        self._loaded = False
        self.done = 0

    def before_train(self) -> None:
        start = self.trainer.start_iter
        due = self._period > 0 and 0 < start < self.trainer.max_iter and start % self._period == 0
        if due and self._loaded and self.done < start:
            logger.info("Evaluating after iteration %d, which was interrupted before.", start - 1)
            self.trainer.storage.iter = start - 1
            self._do_eval()
            self.trainer.storage.iter = start

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.done, self._loaded = state["done"], True

    def _do_eval(self) -> None:
        with preserved_rng():
            results = self._func()
        metrics = comm.all_gather(flatten_results_dict(results))[0]  # the others have none
        self.trainer.storage.put_scalars(**metrics, smoothing_hint=False)
        self.done = self.trainer.storage.iter
        if self.trainer.iter < self.trainer.max_iter:
            self.done += 1
        for listener in self.listeners:
            listener.after_evaluation(metrics, self.done - 1)


class Evaluation:
    """Evaluation of models by `dataloader.test` and `dataloader.evaluator`.

    The loader is built once. Each evaluation has an evaluator of its own, since the ground truth of
    a large dataset would take memory during training.

    Args:
        cfg: effective config.
    """

    def __init__(self, cfg: DictConfig):
        self.cfg = cfg
        with preserved_rng():
            self.loader = instantiate(cfg.dataloader.test)  # sets the metadata of the dataset

    def check(self) -> None:
        """Build an evaluator, only to find its mistakes."""
        with preserved_rng():
            instantiate(self.cfg.dataloader.evaluator)

    def __call__(self, model: nn.Module, ema: EMA | None = None) -> dict[str, Any]:
        """Run a model over the images and return the results.

        Args:
            model: model to evaluate.
            ema: averaged weights of the model, evaluated as task "ema"; None for none.

        Returns:
            Task -> metric -> number, in percent for AP; empty except in the main process.
        """
        evaluator = self.cfg.dataloader.evaluator
        results = self._run(model, evaluator)
        if ema is not None:
            if evaluator.get("output_dir"):  # keeps the files of the other weights
                evaluator = copy.deepcopy(evaluator)
                evaluator.output_dir = os.path.join(evaluator.output_dir, "ema")
            with ema.applied():
                averaged = self._run(model, evaluator)
            results.update({"ema": averaged} if averaged else {})
        return results

    def _run(self, model: nn.Module, evaluator: DictConfig) -> dict[str, Any]:
        # What is evaluated need not be the run whose folder this is, nor its last weights.
        folder = comm.is_main_process() and evaluator.get("output_dir")
        if folder:
            os.makedirs(folder, exist_ok=True)
            LazyConfig.save(self.cfg, os.path.join(folder, "config.yaml"))
            weights_file = os.path.join(folder, "weights.json")
            with open(weights_file, "w", encoding="utf-8"):
                pass  # empty until the results are those of the weights
        tested = with_test_augmentation(model, self.cfg)
        with progress_bar(len(self.loader), "evaluation", leave=False) as bar:
            callbacks = {"after_inference": bar.update}
            results = inference_on_dataset(tested, self.loader, instantiate(evaluator), callbacks)
        if folder:
            with open(weights_file, "w", encoding="utf-8") as file:
                json.dump({"fingerprint": fingerprint(model.state_dict())}, file)
        return results


def check_results(results: Mapping[str, Any], expected: Iterable[Sequence[Any]]) -> None:
    """Compare results with what a config promises, as detectron2's `verify_results` does.

    Args:
        results: task -> metric -> number; empty except in the main process.
        expected: task, metric, value and tolerance of each promise.

    Raises:
        InputError: a result is missing, NaN, or further from its value than the tolerance.
    """
    found = flatten_results_dict(results)
    wrong = []
    for task, metric, value, tolerance in expected if results else ():
        actual = found.get(f"{task}/{metric}", math.nan)
        if not abs(actual - value) <= tolerance:
            wrong.append(f"{task}/{metric} is {actual:.2f}, expected {value} ± {tolerance}")
    if wrong:
        raise InputError(f"{'; '.join(wrong)} (train.expected_results).")


def results_table(results: Mapping[str, Any]) -> str:
    """Return a table with a column per task, without the metrics of single classes."""
    tasks = list(_rows(results))
    names = dict.fromkeys(name for task in tasks for name in task if name)
    known = [{k: v for k, v in task.items() if v == v} for task in tasks]  # no NaN
    rows = [[name, *(task.get(name) for task in known)] for name in names]
    return tabulate(rows, ["", *(task[""] for task in tasks)], floatfmt=".2f", missingval="-")


def _rows(results: Mapping[str, Any], prefix: str = "") -> Iterator[dict[str, Any]]:
    for task, metrics in results.items():
        name = prefix + task
        metrics = metrics if isinstance(metrics, Mapping) else {task: metrics}
        if any(isinstance(value, Mapping) for value in metrics.values()):
            yield from _rows(metrics, f"{name} ")
        else:
            yield {"": name, **{k: v for k, v in metrics.items() if "-" not in k}}
