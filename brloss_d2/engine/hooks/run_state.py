"""Per-process state for exact resumption: RNG, data position, buffers."""

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
    """Checkpointed state of every process: random numbers, data position, buffers.

    Saved are only those buffers of the model that differ from those of the main process, such as
    the state of a balancer. To be registered in every process, as the last of the hooks that draw
    random numbers.

    Args:
        model: model without the wrapper for several processes.
        seed: seed of the run; a resumed run keeps its own.
    """

    def __init__(self, model: nn.Module, seed: int):
        self.model, self.seed = model, seed
        self.loader: ResumableLoader | None = None
        self._loaded: Mapping[str, Any] | None = None  # state of this process

    def before_train(self) -> None:
        # Not when loading: the wrapper for several processes copies the main process's buffers.
        if self._loaded is not None:
            buffers = self._buffers()
            for name, value in self._loaded["buffers"].items():
                buffers[name].copy_(value)
            set_rng_state(self._loaded["rng"])

    def track(self, loader: ResumableLoader) -> ResumableLoader:
        """Save the position of a data loader from now on; return it, at the position to start."""
        self.loader = loader
        if self._loaded is not None:
            loader.load_state_dict(self._loaded["data"])
        return loader

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all processes; empty except in the main process. A collective."""
        own = {
            "rng": rng_state(),
            "data": self._position(),
            "buffers": {name: value.cpu() for name, value in self._buffers().items()},
        }
        processes = comm.gather(own)
        for other in processes[1:]:
            other["buffers"] = {
                name: value
                for name, value in other["buffers"].items()
                if not torch.equal(value, own["buffers"][name])
            }
        if processes:
            processes[0]["buffers"] = {}  # the model's
        return {"seed": self.seed, "processes": processes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the seed, and the state of this process if the run has as many as before."""
        self.seed = state["seed"]
        processes = state["processes"]
        if len(processes) == comm.get_world_size():
            self._loaded = processes[comm.get_rank()]
            return
        logger.warning(
            "The run had %d processes and now has %d: its data and random numbers start again, and "
            "balancers continue from the state of the first process.",
            len(processes),
            comm.get_world_size(),
        )

    def _position(self) -> dict[str, Any]:
        if self.loader is not None:
            return self.loader.state_dict()
        return dict(self._loaded["data"]) if self._loaded else {}

    def _buffers(self) -> dict[str, Tensor]:
        names = self.model.state_dict().keys()  # without the buffers that are not saved
        return {name: value for name, value in self.model.named_buffers() if name in names}
