"""Time and memory of one forward and backward pass."""

import contextlib
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from support.machine import MIB, synchronize


class TimeLimitError(Exception):
    """A measurement took longer than allowed."""


class Sample(NamedTuple):
    """Milliseconds of a forward pass, a backward pass, and both without a pause in between."""

    forward: float
    backward: float
    both: float


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitError` at the next Python instruction after `seconds` in the body.

    Without effect outside the main thread and on Windows, where there is no alarm signal.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeLimitError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def sample(forward: Callable[[], Tensor], logits: Tensor, device: str) -> Sample:
    """Time one pass.

    Args:
        forward: function that computes a loss of `logits`, ().
        logits: (M,) leaf tensor.
        device: "cpu" or "cuda".

    Returns:
        Times of the pass.
    """
    logits.grad = None
    start = _now(device)
    loss = forward()
    middle = _now(device)
    loss.backward()
    end = _now(device)
    both = end - start
    if device != "cpu":
        # Synchronizing between forward and backward costs time there: measure without.
        logits.grad = None
        start_both = _now(device)
        forward().backward()
        both = _now(device) - start_both
    return Sample(1e3 * (middle - start), 1e3 * (end - middle), 1e3 * both)


def _now(device: str) -> float:
    synchronize(device)
    return time.perf_counter()


def time_in_turn(
    forwards: dict[str, Callable[[], Tensor]],
    logits: Tensor,
    device: str,
    *,
    rounds: int,
    limit: float,
) -> dict[str, list[Sample] | None]:
    """Time several forward passes in turn, so that disturbances affect all of them alike.

    Args:
        forwards: functions by name, each computing a loss of `logits`, ().
        logits: (M,) leaf tensor.
        device: "cpu" or "cuda".
        rounds: largest number of samples of each, after one to warm up.
        limit: seconds for each, warm-up included. If only the warm-up fits into it, that is the
            only sample.

    Returns:
        Samples by name, None if a single pass takes longer than the limit.
    """
    found: dict[str, list[Sample] | None] = {}
    left: dict[str, int] = {}
    for name, forward in forwards.items():
        start = time.perf_counter()
        try:
            with time_limit(limit):
                found[name] = [sample(forward, logits, device)]
        except TimeLimitError:
            found[name] = None
            continue
        spent = time.perf_counter() - start
        left[name] = min(rounds, int((limit - spent) / spent))
    for index in range(rounds):
        for name in (n for n, count in left.items() if index < count):
            samples = found[name] or []
            samples.append(sample(forwards[name], logits, device))
    return {name: s[1:] or s if s else None for name, s in found.items()}


def peak_memory(forward: Callable[[], Tensor], logits: Tensor, device: str) -> float:
    """Measure the peak memory of a pass, the gradient of the logits included.

    Args:
        forward: function that computes a loss of `logits`, ().
        logits: (M,) leaf tensor.
        device: "cpu" or "cuda".

    Returns:
        MiB from torch's allocator at the peak, without what was allocated before.
    """
    logits.grad = None
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        forward().backward()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    activity = torch.profiler.ProfilerActivity.CPU
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Profiler clears events")
        with torch.profiler.profile(activities=[activity], profile_memory=True) as profile:
            forward().backward()
    # The CPU allocator has no statistics: add up its recorded events.
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    in_use = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        in_use += event.nbytes()
        peak = max(peak, in_use)
    return peak / MIB
