"""Exponential moving average of the weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from brloss_d2.checkpoint import find_non_finite
from brloss_d2.errors import InputError


class EMA(HookBase):
    """Average of the weights after every step: `average = decay * average + (1 - decay) * weight`.

    The decay starts low, as `(1 + n) / (10 + n)` after n steps, so that short trainings are not
    averaged with their random start. The statistics of batch normalization are averaged like
    weights; other buffers, such as the state of a balancer, are copied. torch's `AveragedModel`
    averages all buffers or none. Processes hold the same weights and hence the same average.

    Args:
        model: model without the wrapper for several processes.
        decay: decay per step, in [0, 1).

    Attributes:
        updates: number of steps averaged so far.
        weights: average of each parameter and copy of each other tensor, by name.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = model, decay
        self.updates = 0
        self.weights: dict[str, Tensor] = {}

    def before_train(self) -> None:
        if not self.weights:  # a new run, or one that had no average so far
            self.weights = {name: value.clone() for name, value in self._current().items()}

    @torch.no_grad()
    def after_step(self) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averaged = [name for name, value in self.model.named_parameters() if value.requires_grad]
        buffers = (name for name, _ in self.model.named_buffers())
        averaged += [name for name in buffers if name.endswith(("running_mean", "running_var"))]
        current = self._current()
        get_ema_multi_avg_fn(decay)(
            [self.weights[name] for name in averaged], [current[name] for name in averaged], None
        )
        for name in current.keys() - averaged:
            self.weights[name].copy_(current[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the averaged weights to the model inside the block."""
        self.before_train()
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        current = self._current()
        broken = find_non_finite(state["weights"], except_for=find_non_finite(current))
        if broken:
            raise InputError(
                f"The averaged weights of the checkpoint are NaN or infinite ({broken[0]}): resume "
                "from an earlier one."
            )
        self.updates = state["updates"]
        self.weights = {
            name: state["weights"][name].to(value, copy=True) for name, value in current.items()
        }

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self._current().items():
            average = self.weights[name].clone()
            self.weights[name].copy_(value)
            value.copy_(average)

    def _current(self) -> dict[str, Tensor]:
        """Return each tensor of the model once, even if modules share it."""
        tensors = chain(self.model.named_parameters(), self.model.named_buffers())
        return {name: value.detach() for name, value in tensors}
