"""The training loop: mixed precision, accumulation, clipping, and checks of the losses."""

import math
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

_ADVICE = (
    "Lower the learning rate (optimizer.lr), clip gradients (train.clip_grad_norm=5), or look at "
    "the boxes of those images."
)


class NonFiniteLossError(FloatingPointError):
    """Training has diverged: the message names the loss terms, the iteration and the images."""


class Trainer(SimpleTrainer):
    """detectron2's trainer for CPU and CUDA, in float32, float16 or bfloat16.

    Every iteration checks that every loss term is finite, at the price of the one host sync that
    logging needs anyway. A gradient that overflows under float16 is no error: the scaler skips
    that step.

    Args:
        model: detector that maps a batch to a dict of scalar losses, or to one loss.
        data_loader: endless batches, lists of dicts per image.
        optimizer: optimizer of the parameters of `model`.
        amp_dtype: type of autocast in the forward pass; None for no autocast.
        clip_grad_norm: largest L2 norm of the whole gradient; 0 for no clipping.
        accumulate: batches per iteration, whose losses are averaged, >= 1.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[dict[str, Any]]],
        optimizer: torch.optim.Optimizer,
        *,
        amp_dtype: torch.dtype | None = None,
        clip_grad_norm: float = 0.0,
        accumulate: int = 1,
    ):
        super().__init__(model, data_loader, optimizer)
        self.device_type = next(model.parameters()).device.type
        self.amp_dtype = amp_dtype
        self.clip_grad_norm = clip_grad_norm
        self.accumulate = accumulate
        self.stop_reason = ""
        self.is_finished = False
        # float16 alone loses small gradients to underflow. CPUs have no scaler.
        scaled = amp_dtype is torch.float16 and self.device_type == "cuda"
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=scaled)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Train, like `TrainerBase.train` but without logging a traceback for a user's mistake.

        Args:
            start_iter: first iteration, counted from 0.
            max_iter: iteration to stop before.

        Raises:
            NonFiniteLossError: training has diverged.
        """
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            self.before_train()
            try:
                for self.iter in range(start_iter, max_iter):
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    if self.stop_reason:
                        break
                else:
                    self.iter = max_iter  # tells the hooks that training has succeeded
            except BaseException:
                self.stop_reason = ""
                raise
            finally:
                self._data_loader_iter_obj = None  # ends its workers before the hooks take time
                self.after_train()

    def after_train(self) -> None:
        """Call this method of all hooks, also if one of them fails, such as an evaluation."""
        self.storage.iter = self.iter
        with ExitStack() as stack:
            for hook in reversed(self._hooks):  # the last one in is the first one out
                stack.callback(hook.after_train)

    def stop(self, reason: str, *, finished: bool) -> None:
        """End training after this iteration. To be called in every process.

        Args:
            reason: sentence for the log, without its full stop.
            finished: whether nothing is left to train; otherwise the run can be resumed.
        """
        self.stop_reason, self.is_finished = reason, finished

    def run_step(self) -> None:
        """Run one iteration.

        Raises:
            NonFiniteLossError: a loss term is infinite or NaN, or the model itself has detected
                divergence. The parameters are left as they were.
        """
        self.optimizer.zero_grad()
        steps: list[dict[str, Tensor]] = []
        data_seconds = 0.0
        for step in range(1, self.accumulate + 1):
            start = time.perf_counter()
            batch = next(self._data_loader_iter)
            data_seconds += time.perf_counter() - start
            steps.append(self._backward(batch, is_last=step == self.accumulate))
        self.after_backward()
        losses = {name: sum(terms[name] for terms in steps) / len(steps) for name in steps[0]}
        self.write_metrics(losses, data_seconds, self.iter)
        if self.clip_grad_norm > 0:
            self.grad_scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad_norm)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Return the last finished iteration and the states of optimizer, hooks and scaler."""
        last = min(self.iter, self.max_iter - 1)  # `iter` is max_iter after the end of training
        scaler = self.grad_scaler.state_dict()
        return {**super().state_dict(), "iteration": last, "grad_scaler": scaler}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the result of `state_dict`, also if only one of the two runs uses float16."""
        # The run's state comes first: it knows what has changed, if others do not fit.
        hooks = sorted(state_dict.get("hooks", {}).items(), key=lambda hook: hook[0] != "RunState")
        super().load_state_dict({**state_dict, "hooks": dict(hooks)})
        scaler = state_dict.get("grad_scaler")
        if scaler and self.grad_scaler.is_enabled():
            self.grad_scaler.load_state_dict(scaler)

    def _backward(self, batch: list[dict[str, Any]], *, is_last: bool) -> dict[str, Tensor]:
        """Add the gradients of a batch and return its losses on the host."""
        # Processes average their gradients once, with the last batch.
        alone = not is_last and isinstance(self.model, DistributedDataParallel)
        enabled = self.amp_dtype is not None
        with self.model.no_sync() if alone else nullcontext():
            try:
                with torch.autocast(self.device_type, dtype=self.amp_dtype, enabled=enabled):
                    losses = self.model(batch)
            except FloatingPointError as error:  # detectron2's proposals check themselves
                raise self._diverged(str(error), batch) from error
            losses = {"total_loss": losses} if isinstance(losses, Tensor) else losses
            self.grad_scaler.scale(sum(losses.values()) / self.accumulate).backward()
        # One transfer, and not before backward, so that the GPU never waits for it.
        values = torch.stack([loss.detach().float().reshape(()) for loss in losses.values()]).cpu()
        found = dict(zip(losses, values.tolist(), strict=True))
        bad = [f"{name} is {value}" for name, value in found.items() if not math.isfinite(value)]
        if bad:
            raise self._diverged(", ".join(bad), batch)
        return dict(zip(losses, values.unbind(), strict=True))

    def _diverged(self, what: str, batch: list[dict[str, Any]]) -> NonFiniteLossError:
        files = [str(image.get("file_name", "(no file name)")) for image in batch]
        return NonFiniteLossError(
            f"Training has diverged at iteration {self.iter}: {what}\n"
            f"Image files of the batch: {', '.join(files)}\n{_ADVICE}"
        )
