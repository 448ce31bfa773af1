"""Evaluate a model and show the numbers."""

from collections.abc import Mapping
from typing import Any

from detectron2.config import instantiate
from detectron2.engine import hooks
from detectron2.evaluation import inference_on_dataset
from omegaconf import DictConfig
from tabulate import tabulate
from torch import nn


class EvalHook(hooks.EvalHook):
    """detectron2's hook, but a failure in the last iteration is not followed by an evaluation,
    for which the other processes would not come."""

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()


def evaluate(cfg: DictConfig, model: nn.Module) -> dict[str, Any]:
    """Run a model over `dataloader.test` and return what `dataloader.evaluator` finds.

    Returns:
        Task -> metric -> number, in percent for AP; empty but in the main process.
    """
    loader = instantiate(cfg.dataloader.test)  # before the evaluator, which reads its metadata
    return inference_on_dataset(model, loader, instantiate(cfg.dataloader.evaluator))


def results_table(results: Mapping[str, Any]) -> str:
    """Return a table with a row for each task, without the metrics of single classes."""
    rows = []
    for task, metrics in results.items():
        metrics = metrics if isinstance(metrics, Mapping) else {task: metrics}
        rows.append({"": task, **{k: v for k, v in metrics.items() if "-" not in k}})
    return tabulate(rows, headers="keys", floatfmt=".2f", missingval="-")
