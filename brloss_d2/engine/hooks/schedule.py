"""What a run's learning rate comes from, and that a resumed run does not mix two schedules."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from fvcore.common.param_scheduler import ParamScheduler
from omegaconf import DictConfig

from brloss_d2.errors import InputError

logger = logging.getLogger(__name__)
# Points of the schedule so far that are compared when a run is resumed.
_POINTS = 64
_TOLERANCE = 1e-6


def images_per_step(cfg: DictConfig) -> int | None:
    """Return how many images all processes together see in one step; None if it cannot be told."""
    loader = cfg.dataloader.train
    images = loader.get("total_batch_size")
    if not images and loader.get("single_gpu_batch_size"):
        images = loader.single_gpu_batch_size * comm.get_world_size()
    return images * cfg.train.accumulate if images else None


def scale_lr(optimizer: torch.optim.Optimizer, cfg: DictConfig) -> None:
    """Multiply learning rates by the images in a step over `train.auto_scale_lr`, and say so.

    Raises:
        InputError: nothing tells how many images there are.
    """
    reference = cfg.train.auto_scale_lr
    if not reference:
        return
    images = images_per_step(cfg)
    if images is None:
        raise InputError("train.auto_scale_lr needs dataloader.train.total_batch_size.")
    for group in optimizer.param_groups:
        before = group["lr"]
        group["lr"] = before * images / reference
    logger.info(
        "Learning rate %g x %d / %d = %g: train.auto_scale_lr, for %d images in a step.",
        *(before, images, reference, group["lr"], images),
    )


class ScheduleGuard(HookBase):
    """Refuses to resume a run with another schedule than it began with.

    Compared are the optimizer and its options, the images in a step, and the learning rates of the
    iterations so far: training may go on for longer if this changes none of them. detectron2 would
    take the optimizer's options from the checkpoint and the schedule from the config.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        multiplier: ParamScheduler,
        *,
        max_iter: int,
        images: int | None,
        may_differ: bool = False,
    ):
        """
        Args:
            optimizer: as it comes from the config.
            multiplier: of its learning rates, over the whole training.
            max_iter: iterations of the whole training.
            images: in a step of all processes.
            may_differ: go on with the schedule of the config, and only say what differs.
        """
        self.multiplier, self.max_iter, self.may_differ = multiplier, max_iter, may_differ
        self.optimizer = optimizer
        self.options = [_options(group) for group in optimizer.param_groups]
        self.plan = {"optimizer": type(optimizer).__name__, "images in a step": images}
        self._new_options: list[tuple[int, str]] = []

    def before_train(self) -> None:
        # Not when loading: the optimizer takes its options from the checkpoint after the hooks.
        for i, name in self._new_options:
            new = self.options[i][name]
            self.optimizer.param_groups[i].update({"initial_lr" if name == "lr" else name: new})

    def state_dict(self) -> dict[str, Any]:
        done = min(self.trainer.iter + 1, self.max_iter)
        points = sorted({done * i // _POINTS for i in range(_POINTS)})
        return {
            "plan": self.plan,
            "options": self.options,
            "max_iter": self.max_iter,
            "multipliers": {point: self._multiplier(point) for point in points},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare.

        Raises:
            InputError: the schedule is another one, and may not be.
        """
        changes = [*self._other_plan(state), *self._other_options(state), *self._other_rate(state)]
        if not changes:
            return
        if not self.may_differ:
            raise InputError(
                f"The run to resume had another schedule: {'; '.join(changes)}. Resume it with its "
                "own config (config.yaml in its folder), or take the new one from here on with "
                "train.mix_schedules=True."
            )
        if self.plan["optimizer"] != state["plan"]["optimizer"]:
            raise InputError(
                f"{changes[0]}, which cannot take over its state. Start a new run with "
                "train.init_checkpoint=FILE, the checkpoint of this one."
            )
        logger.warning("From here on the schedule is another one: %s.", "; ".join(changes))

    def _other_plan(self, state: Mapping[str, Any]) -> list[str]:
        old = state["plan"]
        return [
            f"{name} was {old[name]}, now {new}"
            for name, new in self.plan.items()
            if old[name] != new
        ]

    def _other_options(self, state: Mapping[str, Any]) -> list[str]:
        pairs = list(enumerate(zip(state["options"], self.options, strict=False)))
        self._new_options = [
            (i, name) for i, (old, new) in pairs for name in new if old.get(name) != new[name]
        ]
        texts = {
            f"{name} was {state['options'][i].get(name)}, now {self.options[i][name]}"
            for i, name in self._new_options
        }
        return sorted(texts)

    def _other_rate(self, state: Mapping[str, Any]) -> list[str]:
        """Say at which iteration so far the learning rate would have been another one."""
        lengths = (state["max_iter"], self.max_iter)
        for point, old in state["multipliers"].items():
            if point >= self.max_iter:
                break
            new = self._multiplier(point)
            if abs(new - old) > _TOLERANCE * max(abs(old), abs(new)):
                text = f"{old:.6g} of the learning rate at iteration {point}, now {new:.6g}"
                longer = f" (train.max_iter was {lengths[0]}, now {lengths[1]})"
                return [text + (longer if lengths[0] != lengths[1] else "")]
        return []

    def _multiplier(self, iteration: int) -> float:
        return float(self.multiplier(iteration / self.max_iter))


def guard_of(
    cfg: DictConfig, optimizer: torch.optim.Optimizer, scheduler: object
) -> ScheduleGuard | None:
    """Return a guard for what a config describes; None where the scheduler has its own state."""
    if not isinstance(scheduler, ParamScheduler):
        return None
    return ScheduleGuard(
        optimizer,
        scheduler,
        max_iter=cfg.train.max_iter,
        images=images_per_step(cfg),
        may_differ=cfg.train.mix_schedules,
    )


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """What a config says of a group of parameters, as plain values."""
    kinds = (bool, int, float, str, type(None), tuple, list)
    return {k: v for k, v in group.items() if k != "params" and isinstance(v, kinds)}
