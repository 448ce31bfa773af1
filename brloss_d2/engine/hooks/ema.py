"""An exponential moving average of the weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA(HookBase):
    """Averages the weights after every step: `average = decay * average + (1 - decay) * weight`.

    The decay begins low, as `(1 + n) / (10 + n)` after n steps, so that short trainings are not
    averaged with their random start. The statistics of batch normalization are averaged like
    weights; other buffers, such as the state of a balancer, are those of the model.

    Processes hold the same weights, hence the same average.
    """

    def __init__(self, model: nn.Module, decay: float):
        """
        Args:
            model: not wrapped for several processes.
            decay: in [0, 1).
        """
        self.model, self.decay = model, decay
        self.updates = 0
        self.weights: dict[str, Tensor] = {}

    def before_train(self) -> None:
        if not self.weights:  # a run that begins, or one that had no average so far
            self.weights = {name: value.clone() for name, value in self._current().items()}

    @torch.no_grad()
    def after_step(self) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        current, averaged = self._current(), self._averaged()
        get_ema_multi_avg_fn(decay)(
            [self.weights[name] for name in averaged], [current[name] for name in averaged], None
        )
        for name in current.keys() - averaged:
            self.weights[name].copy_(current[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights for a while."""
        self.before_train()
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates = state["updates"]
        self.weights = {
            name: state["weights"][name].to(value, copy=True)
            for name, value in self._current().items()
        }

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self._current().items():
            average = self.weights[name].clone()
            self.weights[name].copy_(value)
            value.copy_(average)

    def _current(self) -> dict[str, Tensor]:
        """Each tensor of the model once, also where modules share it."""
        tensors = chain(self.model.named_parameters(), self.model.named_buffers())
        return {name: value.detach() for name, value in tensors}

    def _averaged(self) -> list[str]:
        trained = [name for name, value in self.model.named_parameters() if value.requires_grad]
        buffers = [name for name, _ in self.model.named_buffers()]
        return trained + [x for x in buffers if x.endswith(("running_mean", "running_var"))]
