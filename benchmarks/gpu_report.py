"""Run all checks and measurements that need a GPU, in one command.

    python tools/gpu_report.py --output output/gpu

Runs the tests of the losses and their kernels, times the losses with both back-ends next to focal
loss and the published algorithms, times iterations of detectors, and trains the small detector of
`make demo` with several losses. Each step is a command with its own log in the output folder,
which also gets its CSV files, tables and pictures; a step that fails does not stop the others.
Repeat the command to continue: steps that succeeded are not run again.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tabulate import tabulate

from grid.summary import PUBLISHED as PUBLISHED_OF
from support.contenders import CONTENDERS
from support.machine import ROOT, commit, describe, versions

PUBLISHED = tuple(PUBLISHED_OF.values())
LOSSES = tuple(name for name in CONTENDERS if name not in PUBLISHED)
_CO_DETR = "projects/co_detr/configs/co_deformable_detr_R_50_{}_1x.py"
FAMILIES = {
    "faster": ("configs/coco/faster_rcnn_R_50_FPN_{}_1x.py", ("ce", "rs", "brs")),
    "cascade": ("configs/coco/cascade_rcnn_R_50_FPN_{}_1x.py", ("ce", "rs", "brs")),
    "mask": ("configs/coco/mask_rcnn_R_50_FPN_{}_1x.py", ("ce", "rs", "brs")),
    "atss": ("configs/coco/atss_R_50_FPN_{}_1x.py", ("focal", "rs", "brs")),
    "co_detr": (_CO_DETR, ("focal", "brs")),
}
QUICK = "configs/quick/faster_rcnn_R_18_FPN_{}_300it.py"
KERNELS = ("tests/ops/triton_cases.py", "tests/projects/co_detr/ms_deform_triton_cases.py")


class Step(NamedTuple):
    """A command with a time limit.

    Attributes:
        name: name of the step and of its log.
        command: program and arguments.
        limit: seconds after which the command is stopped.
    """

    name: str
    command: list[str]
    limit: float


def steps(output: Path, python: str, minutes: float) -> list[Step]:
    """List the steps, the most important first.

    Args:
        output: folder for the results of the steps.
        python: path of the interpreter.
        minutes: time for all steps together.

    Returns:
        The steps, with limits in proportion to `minutes`.
    """
    shapes = output / "shapes"
    share = 60 * minutes
    tests = ["tests/ops", "tests/losses", "tests/criteria"]
    found = [
        Step("kernels", [python, "-m", "pytest", *KERNELS], 0.1 * share),
        Step("tests", [python, "-m", "pytest", "-W", "ignore", *tests], 0.15 * share),
    ]
    for backend in ("triton", "torch"):
        # The published algorithms have one back-end: they are timed once.
        names = LOSSES + PUBLISHED if backend == "triton" else LOSSES
        command = [python, "benchmarks/losses.py", "--backend", backend, "--losses", *names]
        command += ["--scores", "synthetic", "rpn_late", "--rounds", "15", "--limit", "5"]
        command += ["--output", str(output), "--name", f"losses_{backend}"]
        found.append(Step(f"losses_{backend}", command, 0.2 * share))
    for family, (pattern, losses) in FAMILIES.items():
        configs = [pattern.format(loss) for loss in losses]
        command = [python, "benchmarks/detectors.py", "--configs", *configs]
        command += ["--output", str(output / "detectors.csv")]
        found.append(Step(f"detectors_{family}", command, 0.1 * share))
    found.append(
        Step("shapes", [python, "tools/make_shapes.py", "--output", str(shapes)], 0.05 * share)
    )
    for loss in ("brs", "rs", "ce"):
        command = [python, "train_net.py", "--config-file", QUICK.format(loss), "train.device=cuda"]
        for split in ("train", "val"):
            command.append(f"data.{split}={shapes}/annotations/instances_{split}.json")
            command.append(f"data.{split}_images={shapes}/{split}")
        command.append(f"train.output_dir={output}/train_{loss}")
        found.append(Step(f"train_{loss}", command, 0.1 * share))
    return found


def run(step: Step, output: Path) -> str:
    """Run a step that has not succeeded before; return its result in one line."""
    log, done = output / f"{step.name}.log", output / f"{step.name}.done"
    if done.exists():
        return done.read_text()
    start = time.perf_counter()
    with log.open("w") as file:
        try:
            code = subprocess.run(
                step.command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=step.limit
            ).returncode
        except subprocess.TimeoutExpired:
            return f"stopped after {step.limit:.0f} s"
    result = f"{'ok' if code == 0 else f'FAILED, exit status {code}'}, {_gist(log)}"
    result += f", {time.perf_counter() - start:.0f} s"
    if code == 0:
        done.write_text(result)
    return result


def _gist(log: Path) -> str:
    """Return the most informative line of a log: counts of tests, an AP, or the last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    for line in reversed(lines):
        if re.search(r"\d+ passed|\d+ failed|Average Precision .*0\.50:0\.95 \| area=   all", line):
            return line.strip("= ")
    return lines[-1] if lines else "no output"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "gpu", help="folder")
    parser.add_argument(
        "--minutes", type=float, default=25, help="time for all steps (%(default)s)"
    )
    parser.add_argument("--steps", nargs="+", help="names of the steps to run (default: all)")
    parser.add_argument("--list", action="store_true", help="print the commands and exit")
    args = parser.parse_args(argv)
    output = args.output.absolute()
    todo = steps(output, sys.executable, args.minutes)
    if args.steps:
        unknown = set(args.steps) - {step.name for step in todo}
        if unknown:
            parser.error(f"no such step: {', '.join(sorted(unknown))}; see --list")
        todo = [step for step in todo if step.name in args.steps]
    if args.list:
        print("\n".join(f"{step.name}: {' '.join(step.command)}" for step in todo))
        return 0
    if not torch.cuda.is_available():
        print("error: PyTorch sees no GPU here", file=sys.stderr)
        return 1
    output.mkdir(parents=True, exist_ok=True)
    print(f"{describe('cuda')}\n{versions()}, commit {commit()}", flush=True)
    deadline = time.perf_counter() + 60 * args.minutes
    results = []
    for step in todo:
        left = deadline - time.perf_counter()
        result = run(step._replace(limit=min(step.limit, left)), output) if left > 0 else "no time"
        results.append((step.name, result))
        print(f"{step.name}: {result}", flush=True)
    text = f"{describe('cuda')}, {versions()}, commit {commit()}\n\n{tabulate(results)}\n"
    (output / "report.txt").write_text(text)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(ROOT))
    sys.exit(main())
