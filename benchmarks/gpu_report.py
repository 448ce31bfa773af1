"""Run all checks and measurements that need a GPU, in one command.

    python tools/gpu_report.py --output output/gpu

Takes nine minutes, for a machine that is lent for ten. In this order: the tests of the kernels, the
losses with both back-ends next to focal loss, iterations of three detectors with and without
automatic mixed precision, a training of the small detector of `make demo`; after that, as far as
the time goes, all other tests, detectors and trainings. Each step is a command with its own log in
the output folder, which also gets its CSV files, tables and pictures; report.csv has a row for each
step when it ends. A step that fails or takes longer than its share does not stop the others. Repeat
the command to continue: steps that succeeded are not run again.
"""

import argparse
import csv
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from grid.summary import PUBLISHED as PUBLISHED_OF
from support.contenders import CONTENDERS
from support.machine import ROOT, commit, describe, versions

PUBLISHED = tuple(PUBLISHED_OF.values())
LOSSES = tuple(name for name in CONTENDERS if name not in PUBLISHED)
FAMILIES = {
    "faster": ("configs/coco/faster_rcnn_R_50_FPN_{}_1x.py", ("ce", "rs", "brs")),
    "atss": ("configs/coco/atss_R_50_FPN_{}_1x.py", ("focal", "rs", "brs")),
    "co_detr": (
        "projects/co_detr/configs/co_deformable_detr_R_50_{}_1x.py",
        ("focal", "rs", "brs"),
    ),
}
MORE_FAMILIES = {
    "cascade": ("configs/coco/cascade_rcnn_R_50_FPN_{}_1x.py", ("ce", "rs", "brs")),
    "mask": ("configs/coco/mask_rcnn_R_50_FPN_{}_1x.py", ("ce", "rs", "brs")),
}
# What stands in for the names above in a dry run.
SLIM = {
    "coco/faster_rcnn_R_50_FPN_{}_1x": "quick/faster_rcnn_R_18_FPN_{}_300it",
    "coco/atss_R_50_FPN_{}_1x": "quick/atss_R_18_FPN_{}_300it",
    "co_deformable_detr_R_50_{}_1x": "quick/co_deformable_detr_R_18_{}_300it",
    "coco/mask_rcnn_R_50_FPN_{}_1x": "quick/mask_rcnn_R_18_FPN_{}_300it",
}
QUICK = "configs/quick/faster_rcnn_R_18_FPN_{}_300it.py"
KERNELS = (
    "tests/ops/fused_cases.py",
    "tests/ops/triton_cases.py",
    "tests/projects/co_detr/ms_deform_triton_cases.py",
)


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
        minutes: time for the steps that always run; the others get what these leave.

    Returns:
        The steps, with limits in proportion to `minutes`.
    """
    found: list[Step] = []

    def add(name: str, share: float, *words: str) -> None:
        found.append(Step(name, [python, *words], 60 * minutes * share))

    def add_losses(name: str, share: float, backend: str, *words: str) -> None:
        common = ["--backend", backend, "--name", name, "--output", str(output)]
        common += ["--scores", "synthetic", "--rounds", "11", "--limit", "1"]
        add(name, share, "benchmarks/losses.py", *common, *words)

    def add_detectors(family: str, share: float, pattern: str, losses: Sequence[str]) -> None:
        for suffix, words in (("", []), ("_amp", ["--amp"])):
            words += ["--images", "2", "--rounds", "5", "--output", str(output / "detectors.csv")]
            words += ["--configs", *(pattern.format(loss) for loss in losses)]
            add(f"detectors_{family}{suffix}", share, "benchmarks/detectors.py", *words)

    def add_training(loss: str, share: float) -> None:
        files = {"train_images": shapes / "train", "val_images": shapes / "val"}
        for split in ("train", "val"):
            files[split] = shapes / "annotations" / f"instances_{split}.json"
        words = [f"data.{name}={path}" for name, path in files.items()]
        words += ["train.device=cuda", f"train.output_dir={output}/train_{loss}"]
        add(f"train_{loss}", share, "train_net.py", "--config-file", QUICK.format(loss), *words)

    shapes = output / "shapes"
    # Those left out have many widths of the ramp, each of which is compiled.
    quick = "not (random or golden or edge_cases or test_losses)"
    add("kernels", 0.2, "-m", "pytest", "-q", "-k", quick, *KERNELS)
    for backend in ("triton", "torch"):
        sizes = ("--sizes", "1e5", "1e6", "1e7", "--positives", "0.001", "--losses", *LOSSES)
        add_losses(f"losses_{backend}", 0.09, backend, *sizes)
    for family, (pattern, losses) in FAMILIES.items():
        add_detectors(family, 0.07, pattern, losses)
    add("shapes", 0.03, "tools/make_shapes.py", "--output", str(shapes))
    add_training("brs", 0.17)
    # The rest.
    add("tests", 0.3, "-m", "pytest", "-W", "ignore", "tests/ops", "tests/losses", "tests/criteria")
    for backend in ("triton", "torch"):
        add_losses(f"more_losses_{backend}", 0.2, backend, "--losses", *LOSSES)
    add_losses("published", 0.2, "torch", "--losses", *PUBLISHED)
    for family, (pattern, losses) in MORE_FAMILIES.items():
        add_detectors(family, 0.07, pattern, losses)
    for loss in ("rs", "ce"):
        add_training(loss, 0.17)
    return found


def in_quick_form(step: Step) -> Step:
    """Return what `--dry-run` runs on a CPU instead of a step: seconds of the same program."""
    command = list(step.command)
    for name, slim in SLIM.items():
        pattern, replacement = name.replace("{}", "(.+)"), slim.replace("{}", r"\1")
        command = [re.sub(pattern, replacement, word) for word in command]
    program = command[1]
    if "pytest" in command:
        command = [*command[:3], "-q", "--collect-only", *(x for x in command if x.endswith(".py"))]
    elif program == "benchmarks/losses.py":
        command += ["--device", "cpu", "--sizes", "2e3", "--positives", "0.01", "--rounds", "1"]
        command += ["--limit", "60", "--losses", "focal", "rs"]
    elif program == "benchmarks/detectors.py":
        command += ["--quick", "--device", "cpu"]
    elif program == "tools/make_shapes.py":
        command += ["--train", "4", "--val", "2"]
    else:
        command += ["train.device=cpu", "train.max_iter=1", "dataloader.train.num_workers=0"]
    return step._replace(command=command)


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
    option = parser.add_argument
    option("--output", type=Path, default=ROOT / "output" / "gpu", help="folder")
    option("--minutes", type=float, default=9, help="time for all steps (%(default)s)")
    option("--steps", nargs="+", help="names of the steps to run (default: all)")
    option("--list", action="store_true", help="print the commands and exit")
    option("--dry-run", action="store_true", help="a quick form of the steps, on the CPU")
    args = parser.parse_args(argv)
    output = args.output.absolute()
    todo = steps(output, sys.executable, args.minutes)
    if args.steps:
        unknown = set(args.steps) - {step.name for step in todo}
        if unknown:
            parser.error(f"no such step: {', '.join(sorted(unknown))}; see --list")
        todo = [step for step in todo if step.name in args.steps]
    if args.dry_run:
        todo = [in_quick_form(step) for step in todo]
        os.environ["TRITON_INTERPRET"] = "1"
    if args.list:
        print("\n".join(f"{step.name}: {' '.join(step.command)}" for step in todo))
        return 0
    if not (args.dry_run or torch.cuda.is_available()):
        print("error: PyTorch sees no GPU here; --dry-run needs none", file=sys.stderr)
        return 1
    output.mkdir(parents=True, exist_ok=True)
    machine = describe("cpu" if args.dry_run else "cuda")
    print(f"{machine}\n{versions()}, commit {commit()}", flush=True)
    deadline, status = time.perf_counter() + 60 * args.minutes, 0
    with (output / "report.csv").open("a", newline="", encoding="utf-8") as file:
        for step in todo:
            left = deadline - time.perf_counter()
            result = "no time"
            if left > 0:
                result = run(step._replace(limit=min(step.limit, left)), output)
            csv.writer(file).writerow([step.name, result, machine, versions(), commit()])
            file.flush()
            print(f"{step.name}: {result}", flush=True)
            status |= not result.startswith("ok")
    return status


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(ROOT))
    sys.exit(main())
