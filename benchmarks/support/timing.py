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
    """A measurement took longer than it may."""


class Sample(NamedTuple):
    """Milliseconds of one forward pass, one backward pass, and both without a pause."""

    forward: float
    backward: float
    both: float


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitError` once the body has run this long, at its next Python instruction.

    Without effect where there are no signals to do it with (outside the main thread, on Windows).
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_) -> None:
        raise TimeLimitError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def sample(forward: Callable[[], Tensor], logits: Tensor, device: str) -> Sample:
    """Time one pass; `forward` makes a loss of `logits`."""
    logits.grad = None
    start = _now(device)
    loss = forward()
    middle = _now(device)
    loss.backward()
    end = _now(device)
    if device != "cpu":
        # Once more without waiting in between, where that counts.
        logits.grad = None
        start_both = _now(device)
        forward().backward()
        both = _now(device) - start_both
    else:
        both = end - start
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
    """Samples by name, taken in turn within each round, so that disturbances hit all alike.

    Args:
        forwards: forward passes by name.
        logits: (M,) the leaf they all begin with.
        device: "cpu" or "cuda".
        rounds: samples of each, at most, after one to warm up.
        limit: seconds for each, the one to warm up included. Where no other fits into it, that one
            is the only sample.

    Returns:
        None where a single pass takes longer than the limit.
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
    """MiB that torch's allocator hands out at the peak of a pass, beyond what is in use before.

    The gradient of the logits is part of it.
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
    return _peak_of(profile) / MIB


def _peak_of(profile: torch.profiler.profile) -> int:
    """The CPU allocator keeps no statistics: replay what it did."""
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    in_use = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        in_use += event.nbytes()
        peak = max(peak, in_use)
    return peak
