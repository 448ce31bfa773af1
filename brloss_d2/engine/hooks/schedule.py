"""Learning rate by the number of images, and a guard against mixed schedules on resume."""

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
_PLAIN = (bool, int, float, str, type(None), tuple, list)


def images_per_step(cfg: DictConfig) -> int | None:
    """Return the number of images of all processes together per step; None if it is unknown."""
    loader = cfg.dataloader.train
    images = loader.get("total_batch_size")
    if not images and loader.get("single_gpu_batch_size"):
        images = loader.single_gpu_batch_size * comm.get_world_size()
    return images * cfg.train.accumulate if images else None


def scale_lr(optimizer: torch.optim.Optimizer, cfg: DictConfig) -> None:
    """Multiply learning rates by the images per step over `train.auto_scale_lr`, and log it.

    Raises:
        InputError: the number of images is unknown.
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
        "Learning rate %g x %d / %d = %g: train.auto_scale_lr, for %d images per step.",
        *(before, images, reference, group["lr"], images),
    )


class ScheduleGuard(HookBase):
    """Refuses to resume a run with another schedule.

    It compares the optimizer and its options, the images per step, and the learning rates of the
    iterations so far: training may be longer than planned if this changes none of them. detectron2
    would take the options of the optimizer from the checkpoint and the schedule from the config.

    Args:
        optimizer: optimizer as it comes from the config.
        multiplier: multiplier of its learning rates, over the whole training.
        max_iter: iterations of the whole training.
        images: images of all processes together per step; None if it is unknown.
        may_differ: whether to continue with the schedule of the config and only log the changes.
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
        self.multiplier, self.max_iter, self.may_differ = multiplier, max_iter, may_differ
        self.optimizer = optimizer
        self.options = [
            {k: v for k, v in group.items() if k != "params" and isinstance(v, _PLAIN)}
            for group in optimizer.param_groups
        ]
        # The keys are saved in checkpoints.
        self.plan = {"optimizer": type(optimizer).__name__, "images in a step": images}
        self._new_options: list[tuple[int, str]] = []

    @classmethod
    def from_config(
        cls, cfg: DictConfig, optimizer: torch.optim.Optimizer, scheduler: object
    ) -> "ScheduleGuard | None":
        """Build a guard; return None for a scheduler with a state of its own."""
        if not isinstance(scheduler, ParamScheduler):
            return None
        return cls(
            optimizer,
            scheduler,
            max_iter=cfg.train.max_iter,
            images=images_per_step(cfg),
            may_differ=cfg.train.mix_schedules,
        )

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
        """Compare the schedule of a checkpoint with this one.

        Raises:
            InputError: the schedules differ and must not, or the optimizers are of two classes.
        """
        changes = self._changes(state)
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
        logger.warning("The schedule changes from here on: %s.", "; ".join(changes))

    def _changes(self, state: Mapping[str, Any]) -> list[str]:
        """Describe each change of the plan, of options, and the first one of the learning rate."""
        old = state["plan"]
        changes = [f"{k} was {old[k]}, now {new}" for k, new in self.plan.items() if old[k] != new]
        pairs = list(enumerate(zip(state["options"], self.options, strict=False)))
        self._new_options = [
            (i, name) for i, (before, now) in pairs for name in now if before.get(name) != now[name]
        ]
        changes += sorted(
            {
                f"{name} was {state['options'][i].get(name)}, now {self.options[i][name]}"
                for i, name in self._new_options
            }
        )
        for point, before in state["multipliers"].items():
            if point >= self.max_iter:
                break
            now = self._multiplier(point)
            if abs(now - before) > _TOLERANCE * max(abs(before), abs(now)):
                text = f"{before:.6g} of the learning rate at iteration {point}, now {now:.6g}"
                if state["max_iter"] != self.max_iter:
                    text += f" (train.max_iter was {state['max_iter']}, now {self.max_iter})"
                return [*changes, text]
        return changes

    def _multiplier(self, iteration: int) -> float:
        return float(self.multiplier(iteration / self.max_iter))
