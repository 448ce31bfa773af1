"""Stop in good order when asked to."""

import mmap
import multiprocessing
import os
import signal
import threading
import time
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A launcher may hand on what this process has received already.
_SAME_SECONDS = 3.0
# Time for the process of a data loader's worker to hear of the signal too.
_PARENT_SECONDS = 1.0


class StopSignals(HookBase):
    """Has SIGINT and SIGTERM end training after the iteration, in all processes alike.

    A second signal, some seconds later, ends the process at once.
    """

    def __init__(self) -> None:
        self.received = 0
        self._time = 0.0
        self._pid = os.getpid()
        self._before: dict[int, Any] = {}
        # Seen by the workers of data loaders, which are forks of this process.
        self._shared = mmap.mmap(-1, 1)

    def before_train(self) -> None:
        if threading.current_thread() is threading.main_thread():  # others may set no handler
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
            if hasattr(os, "register_at_fork"):  # Windows does not fork
                os.register_at_fork(after_in_child=self._leave_children_alone)
            self._reach_workers()

    def after_step(self) -> None:
        received = max(comm.all_gather(self.received))
        if received:
            self.received = received
            name = signal.Signals(received).name
            self.trainer.stop(f"Received {name}", finished=False)

    def after_train(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        self._shared[0] = 0

    def _leave_children_alone(self) -> None:
        """Let SIGTERM end a forked process at once, even a stuck one, as pools rely on."""
        if self._before:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _reach_workers(self) -> None:
        """Have workers heed the training process, once torch has set signal handlers of its own."""
        loader = getattr(self.trainer.data_loader, "with_workers", None)
        if loader is None or multiprocessing.get_start_method() != "fork":
            return
        initialize = loader.worker_init_fn

        def initialize_worker(worker_id: int) -> None:
            signal.signal(signal.SIGTERM, self._receive)
            if initialize is not None:
                initialize(worker_id)

        loader.worker_init_fn = initialize_worker

    def _receive(self, number: int, frame: Any) -> None:
        if os.getpid() != self._pid:
            self._receive_as_worker(number)
        elif not self.received:
            self.received, self._time = number, time.monotonic()
            self._shared[0] = 1
        elif time.monotonic() - self._time > _SAME_SECONDS:
            _die_of(number)

    def _receive_as_worker(self, number: int) -> None:
        """Go on if the training process does: it may need data for the iteration that it is at."""
        if number == signal.SIGTERM and not self._shared[0]:
            time.sleep(_PARENT_SECONDS)
            if not self._shared[0]:
                _die_of(number)


def _die_of(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
