"""Trainings as separate processes, and their outcomes."""

import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from brloss_d2.errors import InputError
from brloss_d2.utils.files import write_text

# Metrics of a detector that finds nothing; detectron2 reports NaN.
_NOTHING_FOUND = {"AP": 0.0, "AP50": 0.0, "AP75": 0.0, "oLRP": 100.0}
# Of the names of metrics, by what is evaluated.
PREFIXES = {"bbox": "", "segm": "mask "}
RARE, COMMON = "AP rare", "AP common"
_DIVERGED = "Training has diverged"  # of the message of train_net.py


@dataclass(frozen=True)
class Run:
    """One training with its evaluations, or an evaluation of its last weights on another split.

    Attributes:
        loss: name of the loss.
        seed: seed of initial weights and data.
        config: path of the config file.
        output: output folder.
        arguments: arguments of train_net.py.
        rate: learning rate, if several are compared.
    """

    loss: str
    seed: int
    config: Path
    output: Path
    arguments: tuple[str, ...]
    rate: float | None = None

    @property
    def name(self) -> str:
        """Name for messages."""
        rate = "" if self.rate is None else f", learning rate {self.rate:g}"
        return f"{self.loss} seed {self.seed}{rate}{', test' * self.is_test}"

    @property
    def is_test(self) -> bool:
        """Whether this is an evaluation on another split."""
        return "--eval-only" in self.arguments

    def test(self, overrides: Sequence[str]) -> "Run":
        """Return the evaluation of the last weights on another split.

        Args:
            overrides: overrides of train_net.py that select the split.
        """
        config, folder = self.output / "config.yaml", self.output / "test"
        arguments = ["--config-file", str(config), "--eval-only", *overrides]
        arguments += [f"train.init_checkpoint={self.output / 'model_final.pth'}"]
        arguments += [f"train.output_dir={folder}"]
        return replace(self, config=config, output=folder, arguments=tuple(arguments))

    @property
    def settings(self) -> dict[str, object]:
        """Settings that determine the outcome."""
        text = self.config.read_bytes()
        return {"arguments": list(self.arguments), "config_sha256": sha256(text).hexdigest()}

    def is_done(self) -> bool:
        """Return whether the run has finished.

        Raises:
            InputError: a run with other settings has finished in the same folder.
        """
        if not self.has_ended():
            return False
        found = json.loads(self.record.read_text())
        if {key: found.get(key) for key in self.settings} != self.settings:
            raise self.other_settings()
        return True

    @property
    def diverged(self) -> str:
        """Why the training could not be finished with these settings, "" if it could."""
        return json.loads(self.record.read_text()).get("diverged", "")

    def has_ended(self) -> bool:
        """Return whether a run with any settings has finished in the folder."""
        return self.record.is_file()

    def other_settings(self) -> InputError:
        """Return the error for a finished run with other settings."""
        return InputError(
            f"{self.output} is a finished run with other settings: give another --output, or "
            "remove that folder to train again."
        )

    @property
    def record(self) -> Path:
        """File with the settings of a finished run."""
        return self.output / "done.json"

    def write_record(self, **more: str) -> None:
        """Write the settings of the run, which has finished; others may be read at this moment."""
        write_text(str(self.record), json.dumps({**self.settings, **more}, indent=1))


def finished_arguments(folder: Path) -> dict[Path, list[str]]:
    """Return the arguments of the finished trainings in the `runs` of a comparison, by folder."""
    records = sorted(folder.glob("runs/*/done.json"))
    return {path.parent: json.loads(path.read_text())["arguments"] for path in records}


@dataclass(frozen=True)
class Outcome:
    """Results of a finished run.

    Attributes:
        metrics: metrics of the last evaluation, in percent.
        seconds: seconds of all iterations together, without start and evaluation.
        curve: the main metric by number of iterations, for each evaluation.
    """

    metrics: dict[str, float]
    seconds: float
    curve: dict[int, float] = field(default_factory=dict)


def main_metric(names: Collection[str]) -> str:
    """Return the metric by which losses are compared: that of masks, if there are any."""
    return "mask AP" if "mask AP" in names else "AP"


def command(run: Run, python: str = "python") -> list[str]:
    """Return the command of a run, with paths relative to the working directory."""
    script = os.path.relpath(Path(__file__).parents[2] / "train_net.py")
    return [python, script, *run.arguments]


def threads(jobs: int) -> int:
    """Return the CPU threads per run: OMP_NUM_THREADS, or a share of the cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit():
        return int(given)
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, cores // jobs)


def execute(
    runs: Sequence[Run], jobs: int, prefix: str = ""
) -> Iterator[tuple[Run, str | None, float]]:
    """Train in separate processes.

    Args:
        runs: runs in the order in which they start.
        jobs: number of runs at a time, which share the cores.
        prefix: words before each command, such as `taskset -c 0`.

    Yields:
        A run that has ended, the reason of its failure or None, and its seconds.
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
    (run.output / "metrics.json").unlink(missing_ok=True)  # of an interrupted attempt
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
        # The line of the error says most, if there is one; otherwise the last line.
        text = console.read_text(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        gist = (errors or lines or ["no output"])[-1]
        if _DIVERGED in gist:  # as it would again
            run.write_record(diverged=gist)
        return f"exit status {status}: {gist}; see {console}", seconds
    run.write_record()
    return None, seconds


def outcome(run: Run, main: str = "", rare: Collection[str] = ()) -> Outcome:
    """Read the metrics.json of a finished training.

    Args:
        run: the training.
        main: name of the metric of the curve; by default that of `main_metric`.
        rare: classes that are averaged apart from the others.

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
    curve = {}
    for line in evaluations:
        found = read_metrics(line, rare)
        curve[min(line["iteration"] + 1, iterations)] = found[main or main_metric(found)]
    # Each time is the median of the last 20 iterations; the first three of a run are not timed.
    seconds = sum(times) / len(times) * iterations if times else math.nan
    return Outcome(read_metrics(evaluations[-1], rare), seconds, curve)


def read_metrics(line: Mapping[str, float], rare: Collection[str] = ()) -> dict[str, float]:
    """Select the metrics of boxes and masks over all classes, with numbers for NaN.

    Args:
        line: metrics by `task/name`, those of classes among them.
        rare: classes whose mean AP is added as `AP rare`, and that of the others as `AP common`.
    """
    found = {}
    for key, value in line.items():
        task, _, name = key.partition("/")
        if task in PREFIXES and "-" not in name:
            value = _NOTHING_FOUND.get(name, value) if math.isnan(value) else value
            found[PREFIXES[task] + name] = value
    for task, prefix in PREFIXES.items() if rare else ():
        start = f"{task}/AP-"
        classes = {k.removeprefix(start): v for k, v in line.items() if k.startswith(start)}
        for name, is_rare in ((RARE, True), (COMMON, False)):
            known = [v for c, v in classes.items() if (c in rare) == is_rare and not math.isnan(v)]
            if classes:  # all NaN if nothing was found
                found[prefix + name] = statistics.fmean(known) if known else 0.0
    return found
