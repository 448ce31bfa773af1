"""Stop training gracefully on a signal."""

import logging
import mmap
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

logger = logging.getLogger(__name__)
# By Ctrl-C, `kill`, a closed terminal, and by clusters some time before they kill a job. Windows
# lacks the last three.
SIGNALS = tuple(
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if name in signal.Signals.__members__
)
# A launcher may pass on a signal that this process has received already.
_SAME_SECONDS = 3.0
# Time for the training process of a data loader's worker to receive the signal too.
_PARENT_SECONDS = 1.0


def replace_handlers(handler: Callable[[int, Any], None]) -> dict[int, Any]:
    """Set a handler for all of `SIGNALS`, but not for those that nohup and the like ignore.

    Returns:
        Number of the signal -> handler before; empty if a thread calls that must not set any.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    # A shell lets its background jobs ignore SIGINT, and those of a script get no other.
    heeded = [n for n in SIGNALS if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heeded}


@contextmanager
def handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Let a handler receive all of `SIGNALS` inside the block; see `replace_handlers`."""
    before = replace_handlers(handler)
    try:
        yield
    finally:
        restore_handlers(before)


def restore_handlers(before: Mapping[int, Any]) -> None:
    """Set the handlers that `replace_handlers` has returned."""
    for number, handler in before.items():
        signal.signal(number, handler)


class StopSignals(HookBase):
    """Ends training after the iteration, in all processes, if one of them gets one of `SIGNALS`.

    A second signal, some seconds later, ends the process at once.

    Attributes:
        received: number of the signal; 0 for none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._time = 0.0
        self._pid, self._launcher = os.getpid(), os.getppid()
        self._before: dict[int, Any] = {}
        # Seen by the workers of data loaders, which are forks of this process.
        self._shared = mmap.mmap(-1, 1)

    def before_train(self) -> None:
        self._before = replace_handlers(self._receive)
        if not self._before:
            return
        if hasattr(os, "register_at_fork"):  # Windows does not fork
            os.register_at_fork(after_in_child=self._reset_in_child)
        loader = getattr(self.trainer.data_loader, "torch_loader", None)
        if loader is None or multiprocessing.get_start_method() != "fork":
            return
        initialize = loader.worker_init_fn

        def initialize_worker(worker_id: int) -> None:
            # Workers follow the training process, after torch has set its own signal handlers.
            signal.signal(signal.SIGTERM, self._receive)
            if initialize is not None:
                initialize(worker_id)

        loader.worker_init_fn = initialize_worker

    def after_step(self) -> None:
        received = max(comm.all_gather(self.received))
        if received:
            self.received = received
            reason = f"Received {signal.Signals(received).name}"
            if comm.get_world_size() > 1 and os.getppid() != self._launcher:
                reason = "The launcher of the processes has ended"  # the system sends a signal
            self.trainer.stop(reason, finished=False)

    def after_train(self) -> None:
        restore_handlers(self._before)
        self._before = {}
        self._shared[0] = 0
        if self.received and self.trainer.iter >= self.trainer.max_iter:
            name = signal.Signals(self.received).name
            logger.info("Received %s after the last iteration: the end was carried out.", name)

    def _reset_in_child(self) -> None:
        """Let SIGTERM end a forked process at once, even a stuck one, as pools rely on."""
        if self._before:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _receive(self, number: int, frame: Any) -> None:
        if os.getpid() != self._pid:
            # A worker continues if the training process does, whose iteration may need data.
            if number == signal.SIGTERM and not self._shared[0]:
                time.sleep(_PARENT_SECONDS)
                if not self._shared[0]:
                    _die_of(number)
        elif not self.received:
            self.received, self._time = number, time.monotonic()
            self._shared[0] = 1
        elif time.monotonic() - self._time > _SAME_SECONDS:
            if comm.is_main_process():  # print and logging might be at work, and cannot wait
                name = signal.Signals(number).name
                os.write(2, f"\nerror: Stopped at once by another signal, {name}.\n".encode())
            _die_of(number)


def _die_of(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
