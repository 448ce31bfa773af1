"""Trainings as separate processes, and what they have left."""

import json
import math
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from brloss_d2.errors import InputError

# What detectron2 reports where nothing was found at all is NaN.
_NOTHING_FOUND = {"AP": 0.0, "AP50": 0.0, "AP75": 0.0, "oLRP": 100.0}


@dataclass(frozen=True)
class Run:
    """One training with an evaluation.

    Attributes:
        loss: name of the loss.
        seed: of initialization and data.
        config: the config file.
        output: the folder it writes to.
        arguments: of train_net.py.
    """

    loss: str
    seed: int
    config: Path
    output: Path
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.loss} seed {self.seed}"

    @property
    def settings(self) -> dict[str, object]:
        """What decides on the outcome."""
        text = self.config.read_bytes()
        return {"arguments": list(self.arguments), "config_sha256": sha256(text).hexdigest()}

    def is_done(self) -> bool:
        """Whether the run has finished before.

        Raises:
            InputError: it has, with other settings.
        """
        if not self.has_ended():
            return False
        if json.loads(self._record.read_text()) != self.settings:
            raise self.other_settings()
        return True

    def has_ended(self) -> bool:
        """Whether it has finished before, with whatever settings."""
        return self._record.is_file()

    def record(self) -> None:
        """Note that it has finished."""
        self._record.write_text(json.dumps(self.settings, indent=1))

    def other_settings(self) -> InputError:
        """What to tell the user whose run was another one."""
        return InputError(
            f"{self.output} is a finished run with other settings: give another --output, or "
            "remove that folder."
        )

    @property
    def _record(self) -> Path:
        return self.output / "done.json"


@dataclass(frozen=True)
class Outcome:
    """What a finished run has measured.

    Attributes:
        metrics: of the last evaluation, in percent.
        seconds: of training, without evaluation and start: the sum over the iterations.
        curve: iterations trained -> AP, of every evaluation.
    """

    metrics: dict[str, float]
    seconds: float
    curve: dict[int, float] = field(default_factory=dict)


def command(run: Run, python: str = "python") -> list[str]:
    """The command line of a run, from the working directory."""
    script = os.path.relpath(Path(__file__).parents[2] / "train_net.py")
    return [python, script, *run.arguments]


def threads(jobs: int) -> int:
    """CPU threads of each of `jobs` runs: OMP_NUM_THREADS, or a share of the cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit():
        return int(given)
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, cores // jobs)


def execute(
    runs: Sequence[Run], jobs: int, prefix: str = ""
) -> Iterator[tuple[Run, str | None, float]]:
    """Train what has not finished yet.

    Args:
        runs: in the order in which to start them.
        jobs: so many at a time; they share the cores.
        prefix: put before every command, such as `taskset -c 0`.

    Yields:
        A run that has ended, None or what went wrong, and the seconds it took in all.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads(jobs))}
    children: set[subprocess.Popen] = set()
    with ThreadPoolExecutor(jobs) as pool:
        futures = {
            pool.submit(_execute, run, [*shlex.split(prefix)], environment, children): run
            for run in runs
        }
        try:
            for future in as_completed(futures):
                yield futures[future], *future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in list(children):
                child.terminate()
            raise


def _execute(
    run: Run, prefix: list[str], environment: dict[str, str], children: set[subprocess.Popen]
) -> tuple[str | None, float]:
    run.output.mkdir(parents=True, exist_ok=True)
    (run.output / "metrics.json").unlink(missing_ok=True)  # of an attempt that was cut short
    console = run.output / "console.txt"
    start = time.perf_counter()
    with console.open("w") as file:
        child = subprocess.Popen(
            [*prefix, *command(run, sys.executable)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        children.add(child)
        status = child.wait()
        children.discard(child)
    seconds = time.perf_counter() - start
    if status != 0:
        return f"exit status {status}: {_gist(console)}; see {console}", seconds
    run.record()
    return None, seconds


def _gist(console: Path) -> str:
    """The line that says most: the error, or the last one."""
    lines = [line for line in console.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["no output"])[-1]


def outcome(run: Run) -> Outcome:
    """Read what a finished run has left in its metrics.json.

    Raises:
        InputError: the file has no evaluation of boxes.
    """
    path = run.output / "metrics.json"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    evaluations = [line for line in lines if "bbox/AP" in line]
    times = [line["time"] for line in lines if "time" in line]
    if not evaluations:
        raise InputError(f"{path} has no evaluation of boxes: remove the folder to train again.")
    iterations = max(line["iteration"] for line in lines)
    curve = {min(e["iteration"] + 1, iterations): _metrics(e)["AP"] for e in evaluations}
    # Each is the median of the last 20 iterations; the first three of a run are not timed.
    seconds = sum(times) / len(times) * iterations if times else math.nan
    return Outcome(_metrics(evaluations[-1]), seconds, curve)


def _metrics(line: dict[str, float]) -> dict[str, float]:
    """The metrics of boxes over all classes."""
    found = {k.removeprefix("bbox/"): v for k, v in line.items() if k.startswith("bbox/")}
    return {
        k: _NOTHING_FOUND.get(k, v) if math.isnan(v) else v
        for k, v in found.items()
        if "-" not in k
    }
