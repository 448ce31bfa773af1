"""The training loop: mixed precision, accumulation, clipping, and a watch on the losses."""

import math
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
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
        """
        Args:
            model: takes a batch and returns a dict of scalar losses, or one loss.
            data_loader: endless batches.
            optimizer: over the parameters of `model`.
            amp_dtype: what autocast computes in; None leaves it off.
            clip_grad_norm: largest L2 norm of the whole gradient; 0 does not clip.
            accumulate: batches in an iteration, whose losses are averaged.
        """
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
            start_iter: the first iteration, counted from 0.
            max_iter: the iteration to stop before.

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
                    self.iter = max_iter  # tells the hooks that all went well
            except BaseException:
                self.stop_reason = ""
                raise
            finally:
                self._data_loader_iter_obj = None  # ends its workers, before hooks take their time
                self.after_train()

    def stop(self, reason: str, *, finished: bool) -> None:
        """Have training end after this iteration. To be called in every process.

        Args:
            reason: a sentence without its full stop, for the log.
            finished: nothing is left to train; otherwise the run waits to be resumed.
        """
        self.stop_reason, self.is_finished = reason, finished

    def run_step(self) -> None:
        """Run one iteration.

        Raises:
            NonFiniteLossError: a loss term is infinite or not a number, or the model has found
                out by itself that it has diverged. The parameters are left as they were.
        """
        self.optimizer.zero_grad()
        losses, data_seconds = [], 0.0
        for step in range(1, self.accumulate + 1):
            start = time.perf_counter()
            batch = next(self._data_loader_iter)
            data_seconds += time.perf_counter() - start
            losses.append(self._backward(batch, is_last=step == self.accumulate))
        self.after_backward()
        self.write_metrics(_mean(losses), data_seconds, self.iter)
        self._update()

    def state_dict(self) -> dict[str, Any]:
        """Return the iteration done last and the states of optimizer, hooks and gradient scaler."""
        last = min(self.iter, self.max_iter - 1)  # `iter` is max_iter when training has ended
        scaler = self.grad_scaler.state_dict()
        return {**super().state_dict(), "iteration": last, "grad_scaler": scaler}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` has returned, also where float16 was off then or is now."""
        super().load_state_dict(state_dict)
        scaler = state_dict.get("grad_scaler")
        if scaler and self.grad_scaler.is_enabled():
            self.grad_scaler.load_state_dict(scaler)

    def _backward(self, batch: list[dict[str, Any]], *, is_last: bool) -> dict[str, Tensor]:
        """Add the gradients of a batch and return its losses on the host."""
        alone = not is_last and isinstance(self.model, DistributedDataParallel)
        # Processes average their gradients once, with the last batch.
        with self.model.no_sync() if alone else nullcontext():
            losses = self._forward(batch)
            self.grad_scaler.scale(sum(losses.values()) / self.accumulate).backward()
        losses = _on_host(losses)  # not before backward, so that the GPU never waits for it
        self._check_finite(losses, batch)
        return losses

    def _forward(self, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        enabled = self.amp_dtype is not None
        try:
            with torch.autocast(self.device_type, dtype=self.amp_dtype, enabled=enabled):
                losses = self.model(batch)
        except FloatingPointError as error:  # detectron2's proposals check themselves
            raise self._diverged(str(error), batch) from error
        return {"total_loss": losses} if isinstance(losses, Tensor) else losses

    def _check_finite(self, losses: Mapping[str, Tensor], batch: list[dict[str, Any]]) -> None:
        values = {name: float(loss) for name, loss in losses.items()}
        bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise self._diverged(", ".join(bad), batch)

    def _diverged(self, what: str, batch: list[dict[str, Any]]) -> NonFiniteLossError:
        files = [str(image.get("file_name", "(no file name)")) for image in batch]
        return NonFiniteLossError(
            f"Training has diverged at iteration {self.iter}: {what}\n"
            f"Image files of the batch: {', '.join(files)}\n{_ADVICE}"
        )

    def _update(self) -> None:
        if self.clip_grad_norm > 0:
            self.grad_scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad_norm)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()


def _mean(losses: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: sum(terms[name] for terms in losses) / len(losses) for name in losses[0]}


def _on_host(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy all losses in one transfer."""
    values = torch.stack([loss.detach().float().reshape(()) for loss in losses.values()]).cpu()
    return dict(zip(losses, values.unbind(), strict=True))
