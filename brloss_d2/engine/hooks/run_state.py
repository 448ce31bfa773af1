"""State of a run for exact resumption: data, RNG and buffers of each process."""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.engine import HookBase
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from brloss_d2.engine.data_order import ResumableLoader, divided_anew
from brloss_d2.engine.randomness import rng_state, set_rng_state
from brloss_d2.utils.config_nodes import dataset_of, located, names_of
from brloss_d2.utils.text import printable

logger = logging.getLogger(__name__)
_BLOCK = 2**24  # bytes of a file to read at once
_MOST_CHANGES = 5  # of the config in a message
_LONGEST = 40  # characters of a value in a message
# What a resumed run may have differently without a word, by its path or the last part of that: it
# changes nothing that is learned, or is compared elsewhere (the data, the seed, the schedule).
_FREE = {
    *("optimizer", "lr_multiplier", "num_workers", "output_dir", "dataset_name"),
    *(f"dataloader.{split}.dataset" for split in ("train", "test")),
    *(f"train.{key}" for key in ("init_checkpoint", "max_iter", "seed", "auto_scale_lr")),
    *(f"train.{key}" for key in ("log_period", "eval_period", "checkpointer", "mix_schedules")),
    *(f"train.{key}" for key in ("device", "num_threads", "cudnn_benchmark", "wandb")),
    "train.check_images",
}


class RunState(HookBase):
    """Checkpointed state of every process: random numbers, data position, buffers.

    It also describes data and config, so that a run is not resumed with others in silence.

    Saved are only those buffers of the model that differ from those of the main process, such as
    the state of a balancer. To be registered in every process, as the last of the hooks that draw
    random numbers.

    Args:
        model: model without the wrapper for several processes.
        seed: seed of the run; a resumed run keeps its own.
        data: result of `describe_data`.
        config: result of `describe_config`.

    Attributes:
        changes: what of data and config is not that of the checkpoint, for a message.
    """

    def __init__(
        self, model: nn.Module, seed: int, data: Mapping[str, Any], config: Mapping[str, Any]
    ):
        self.model, self.seed, self.data, self.config = model, seed, data, config
        self.changes: list[str] = []
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
            "data": self.loader.state_dict()
            if self.loader
            else (self._loaded or {}).get("data", {}),
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
        run = {"seed": self.seed, "data": self.data, "config": self.config}
        return {**run, "processes": processes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the seed and the state of this process, or its part of the data of others."""
        self.seed = state["seed"]
        for split, old in state.get("data", {}).items():
            new = self.data.get(split)
            if new is not None and new["sha256"] != old["sha256"]:
                was, now = old["source"], new["source"]
                text = f"was {was}, now {now}" if was != now else f"{now} has changed since"
                self.changes.append(f"{split}: {text}")
        found = list(_differences(state["config"], self.config)) if "config" in state else []
        self.changes += found[:_MOST_CHANGES]
        if len(found) > _MOST_CHANGES:
            self.changes.append(f"{len(found) - _MOST_CHANGES} more keys of the config")
        processes = state["processes"]
        if len(processes) == comm.get_world_size():
            self._loaded = processes[comm.get_rank()]
            return
        positions = [process["data"] for process in processes]
        if all(positions):
            data = divided_anew(positions, comm.get_rank(), comm.get_world_size())
            self._loaded = {"data": data, "buffers": {}, "rng": rng_state()}
        logger.warning(
            "The run had %d processes and now has %d: its images continue, random numbers of the "
            "model start again, and balancers continue from the state of the first process.",
            len(processes),
            comm.get_world_size(),
        )

    def _buffers(self) -> dict[str, Tensor]:
        names = self.model.state_dict().keys()  # without the buffers that are not saved
        return {name: value for name, value in self.model.named_buffers() if name in names}


def describe_data(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    """Return `names`, `source` and `sha256` of the annotations of each dataset that has a name.

    Args:
        cfg: effective config.
    """
    found = {}
    for split in ("train", "test"):
        node = dataset_of(cfg, split)
        names = names_of(node)
        if not names:
            continue
        given = [node.json_file] if node.get("json_file") else []
        known = given or [MetadataCatalog.get(name).get("json_file") for name in names]
        files = [name for name in known if name and os.path.isfile(name)]
        digest = hashlib.sha256(b"" if files else repr(names).encode())
        for file_name in files:
            with open(file_name, "rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        source = ", ".join(map(os.path.abspath, files)) or ", ".join(names)
        found[f"dataloader.{split}"] = {
            "names": names,
            "source": source,
            "sha256": digest.hexdigest(),
        }
    return found


def describe_config(cfg: DictConfig) -> dict[str, Any]:
    """Return the values of a config that a run should be resumed with, as dicts, lists and text.

    Args:
        cfg: effective config, without unresolvable interpolations.
    """

    def describe(value: Any, path: str) -> Any:
        if isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
            value = dict(enumerate(value))
        if isinstance(value, dict):
            items = [(f"{path}.{key}".lstrip("."), key, item) for key, item in value.items()]
            return {
                str(key): describe(item, inner)
                for inner, key, item in items
                if not {inner, key} & _FREE
            }
        if isinstance(value, list | tuple):
            return [describe(item, "") for item in value]
        if isinstance(value, str) and path.endswith("_target_"):
            value = located(value) or value  # it may be known by several names
        if isinstance(value, bool | int | float | str | None):
            return value
        code = value if hasattr(value, "__qualname__") else type(value)
        return f"{code.__module__}.{code.__qualname__}"

    return describe(OmegaConf.to_container(cfg, resolve=True), "")


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Describe the outermost parts of a config that are of another class, or of another value."""
    both = isinstance(old, Mapping) and isinstance(new, Mapping)
    if both and old.get("_target_") == new.get("_target_"):
        for key in {**old, **new}:
            inner = f"{path}.{key}".lstrip(".")
            yield from _differences(old.get(key), new.get(key), inner)
    elif old != new:
        # The name of a class tells more than all of its arguments.
        values = [
            x.get("_target_", "a dict").rpartition(".")[2] if isinstance(x, Mapping) else x
            for x in (old, new)
        ]
        was, now = (printable("null" if x is None else x, length=_LONGEST) for x in values)
        yield f"{path}: was {was}, now {now}"
