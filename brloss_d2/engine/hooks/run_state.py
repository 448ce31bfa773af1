"""What else a run has to remember to continue as if nothing had happened."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor, nn

from brloss_d2.engine.data_order import ResumableLoader
from brloss_d2.engine.randomness import rng_state, set_rng_state

logger = logging.getLogger(__name__)


class RunState(HookBase):
    """Keeps in checkpoints what every process has of its own.

    That is the state of its random numbers, its place in the data, and those buffers of the model
    that differ from the first process's, such as the state of a balancer. To be registered as the
    last of the hooks that draw random numbers, in every process.
    """

    def __init__(self, model: nn.Module, seed: int):
        """
        Args:
            model: not wrapped for several processes.
            seed: of the run; a resumed run keeps its own.
        """
        self.model, self.seed = model, seed
        self.loader: ResumableLoader | None = None
        self._mine: Mapping[str, Any] | None = None

    def before_train(self) -> None:
        # Not when loading: the wrapper for several processes copies the first one's buffers.
        if self._mine is None:
            return
        self._buffers_of_model(self._mine["buffers"])
        set_rng_state(self._mine["rng"])

    def take(self, loader: ResumableLoader) -> ResumableLoader:
        """Remember the place in these data from now on; return them, at the place to go on from."""
        self.loader = loader
        if self._mine is not None:
            loader.load_state_dict(self._mine["data"])
        return loader

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all processes, which have to call it together; empty elsewhere."""
        mine = {
            "rng": rng_state(),
            "data": self.loader.state_dict() if self.loader else {},
            "buffers": {name: value.cpu() for name, value in self._buffers().items()},
        }
        processes = comm.gather(mine)
        for other in processes[1:]:
            other["buffers"] = {
                name: value
                for name, value in other["buffers"].items()
                if not torch.equal(value, mine["buffers"][name])
            }
        if processes:
            processes[0]["buffers"] = {}  # the model's
        return {"seed": self.seed, "processes": processes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the seed, and the state of this process if there were as many processes."""
        self.seed = state["seed"]
        processes = state["processes"]
        if len(processes) == comm.get_world_size():
            self._mine = processes[comm.get_rank()]
            return
        logger.warning(
            "The run had %d processes and now has %d: its data and random numbers begin anew, "
            "and balancers go on from the first process's state.",
            len(processes),
            comm.get_world_size(),
        )

    def _buffers(self) -> dict[str, Tensor]:
        names = self.model.state_dict().keys()
        return {name: value for name, value in self.model.named_buffers() if name in names}

    def _buffers_of_model(self, values: Mapping[str, Tensor]) -> None:
        buffers = self._buffers()
        for name, value in values.items():
            buffers[name].copy_(value)
