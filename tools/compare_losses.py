"""Train the same detector with several losses on your data, and compare.

    python tools/compare_losses.py --data datasets/shapes --seeds 3
    python tools/compare_losses.py --data train.json,train/,val.json,val/ --losses focal,brs \\
        --detector retinanet --iterations 2000 --lr focal=0.002 --jobs 2
    python tools/compare_losses.py --data FOLDER --config-file configs/coco/atss_R_50_FPN_brs_1x.py

All runs of a seed have the same anchors, assignment, initial weights, data in the same order and
number of iterations; what a loss brings along by design is printed and written down, such as its
box loss or a branch that predicts quality. Each run is a process of train_net.py. Writes table.md,
table.csv, plot.png and commands.sh. Give the same command again to go on: runs that have finished
are not repeated, and losses or seeds can be added.

`ce` is binary cross-entropy of sigmoids in one-stage detectors, in the place of focal loss in its
criterion and divided by the same number of positives; in an R-CNN softmax cross-entropy.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from benchmark.machine import ROOT, commit, describe, versions
from comparison.data import Data
from comparison.plot import plot
from comparison.recipe import (
    DETECTORS,
    criteria_of,
    differences,
    losses_of,
    slim_recipe,
    with_loss,
)
from comparison.report import Study, summary_table, write_csv, write_markdown
from comparison.runs import Run, command, execute, outcome, threads
from detectron2.config import LazyConfig
from omegaconf import DictConfig

from brloss_d2.engine import load_config
from brloss_d2.errors import InputError

QUICK = {"seeds": 1, "iterations": 8, "evaluations": 1, "images": 16}
DEFAULT_LOSSES = ("ce", "focal", "qfl", "vfl", "mal", "rs", "brs")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 1 if a run has failed."""
    args = _parse(argv)
    try:
        return Comparison(args).run()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. Give the same command again to go on.", file=sys.stderr)
        return 130


class Comparison:
    """What a command line asks for.

    Args:
        args: of `_parse`.

    Raises:
        InputError: a mistake in them, or in the data, or in a config with one of the losses.
    """

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.output: Path = args.output
        self.path = args.config_file or slim_recipe(args.detector)
        self.data = Data.parse(args.data)
        if args.images:
            self.data = self.data.first(args.images, self.output / "data")
        images = self.data.check_train().images
        self.losses = _losses(args.losses, self.path)
        rates = _rates(args.lr, self.losses)
        self.configs = {loss: with_loss(self.path, loss, images) for loss in self.losses}
        for loss, cfg in self.configs.items():
            cfg.optimizer.lr = rates.get(loss, cfg.optimizer.lr)
            cfg.train.max_iter = args.iterations or cfg.train.max_iter
            cfg.train.eval_period = -(-cfg.train.max_iter // args.evaluations)
        self.runs = [
            self._run(loss, seed) for seed in range(1, args.seeds + 1) for loss in self.losses
        ]

    def run(self) -> int:
        """Train, and write tables and picture after every run; return the exit status."""
        self._write_configs()
        self.effective = {
            run.loss: load_config(str(run.config), run.arguments[2:])[0] for run in self.runs
        }
        todo = [run for run in self.runs if not run.is_done()]
        self._write_commands()
        print("\n".join(["What differs between the losses:", *map("- {}".format, self._notes())]))
        print(f"{len(self.runs)} runs, {len(self.runs) - len(todo)} of them finished", flush=True)
        failures: dict[str, str] = {}
        start = time.perf_counter()
        for number, (run, failure, seconds) in enumerate(
            execute(todo, self.args.jobs, self.args.prefix), start=1
        ):
            if failure:
                failures[run.name] = failure
            gist = failure or f"AP {outcome(run).metrics['AP']:.1f}"
            passed = (time.perf_counter() - start) / 60
            print(
                f"[{number}/{len(todo)}, {passed:.1f} min] {run.name}: {gist} ({seconds:.0f} s)",
                flush=True,
            )
            self._report(failures)
        study = self._report(failures)
        print(f"\n{summary_table(study)}\n\nWrote {self.output}/table.md and what it refers to.")
        return int(bool(failures))

    def _run(self, loss: str, seed: int) -> Run:
        config, folder = self.output / "configs" / f"{loss}.yaml", f"{loss}_seed{seed}"
        output = self.output / "runs" / folder
        arguments = ["--config-file", str(config), *self.data.overrides, f"train.seed={seed}"]
        arguments += [f"train.output_dir={output}", *self.args.overrides]
        return Run(loss, seed, config, output, tuple(arguments))

    def _write_configs(self) -> None:
        """Write the config of each loss, but not over that of a finished run."""
        folder = self.output / "configs"
        folder.mkdir(parents=True, exist_ok=True)
        for loss, cfg in self.configs.items():
            path, new = folder / f"{loss}.yaml", folder / "new.yaml"
            LazyConfig.save(cfg, str(new))
            finished = [run for run in self.runs if run.loss == loss and run.has_ended()]
            if finished and path.read_bytes() != new.read_bytes():
                new.unlink()
                raise finished[0].other_settings()
            new.replace(path)

    def _write_commands(self) -> None:
        lines = ["#!/bin/sh", "# The trainings that are compared, each by itself.", "set -e"]
        lines += [f"cd {shlex.quote(str(Path.cwd()))}"]
        lines += [shlex.join(command(run)) for run in self.runs]
        (self.output / "commands.sh").write_text("\n".join(lines) + "\n")

    def _report(self, failures: dict[str, str]) -> Study:
        study = self._study(failures)
        write_csv(study, self.output / "table.csv")
        plot(study, self.output / "plot.png")
        write_markdown(study, self.output / "table.md", "plot.png")
        return study

    def _study(self, failures: dict[str, str]) -> Study:
        cfg = self.effective[self.losses[0]]
        iterations, batch = cfg.train.max_iter, cfg.dataloader.train.total_batch_size
        name = Path(self.args.data.split(",")[0])
        title = f"{self.path.stem.split('_brs')[0]} on {name.name}, {iterations} iterations"
        setting = [
            f"detector: {_shown(self.path)}, with the criteria of each loss",
            f"data: {self.args.data}"
            + (f", the first {self.args.images} images of each split" if self.args.images else ""),
            f"budget: {iterations} iterations of {batch} images for every loss",
            f"{_hardware(self.args.jobs)}; {versions()}; commit {commit()}",
            "every command: commands.sh",
        ]
        if self.args.overrides:
            setting.insert(3, f"overrides: `{shlex.join(self.args.overrides)}`")
        done = {run: outcome(run) for run in self.runs if run.is_done()}
        return Study(
            f"Losses compared: {title}",
            self.losses,
            done,
            failures,
            self.args.seeds,
            setting,
            self._notes(),
        )

    def _notes(self) -> list[str]:
        return notes(self.effective)


def notes(configs: dict[str, DictConfig]) -> list[str]:
    """What differs between the configs of the losses, in words."""
    rates = {loss: cfg.optimizer.lr for loss, cfg in configs.items()}
    if len(set(rates.values())) == 1:
        found = [
            f"learning rate {rates[next(iter(rates))]:g} for every loss, tuned for none: one rate "
            "may suit one loss better than another (`--lr LOSS=RATE`)"
        ]
    else:
        found = [f"learning rates: {_by_value(rates)}"]
    for key, values in differences(configs).items():
        if key not in ("optimizer.lr", "train.output_dir"):
            found.append(f"`{key}`: {_by_value(values)}")
    for loss, cfg in configs.items():
        for key, text in criteria_of(cfg).items():
            found.append(f"{loss}, `{key}`: `{text}`")
    return found


def _hardware(jobs: int) -> str:
    if torch.cuda.is_available():
        return f"{describe('cuda')}, {jobs} at a time"
    name, count = describe("cpu").split(",")[0], threads(jobs)
    return f"{name}, {jobs} at a time, {count} thread{'s' * (count > 1)} each"


def _by_value(values: dict[str, object]) -> str:
    groups: dict[str, list[str]] = {}
    for loss, value in values.items():
        groups.setdefault(str(value), []).append(loss)
    return "; ".join(f"{value} for {', '.join(names)}" for value, names in groups.items())


def _losses(text: str | None, path: Path) -> list[str]:
    known = losses_of(load_config(str(path))[0])
    if text is None:
        return [loss for loss in DEFAULT_LOSSES if loss in known]
    given = [loss for loss in text.split(",") if loss]
    if not given or len(set(given)) < len(given):
        raise InputError(f"--losses={text}: expected different names from {', '.join(known)}.")
    return given


def _rates(text: str | None, losses: Sequence[str]) -> dict[str, float]:
    """Rates by loss from `0.001,focal=0.01`."""
    found: dict[str, float] = {}
    for part in text.split(",") if text else []:
        loss, equals, rate = part.rpartition("=")
        try:
            value = float(rate)
        except ValueError:
            value = 0.0
        if not value > 0 or (equals and loss not in losses):
            raise InputError(
                f"--lr: cannot use {part!r}: expected RATE, for all, or LOSS=RATE with one of "
                f"{', '.join(losses)}."
            )
        found.update(
            {loss: value} if equals else {name: value for name in losses if name not in found}
        )
    return found


def _shown(path: Path) -> str:
    path = path.absolute()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option(
        "--data",
        required=True,
        help="folder in COCO's layout, or train.json,train_images,val.json,val_images",
    )
    option(
        "--losses",
        help=f"the first is compared with (default: {','.join(DEFAULT_LOSSES)}, as "
        "far as the detector knows them)",
    )
    option("--seeds", type=_positive, default=3, help="so many runs of each loss (%(default)s)")
    option(
        "--detector",
        choices=DETECTORS,
        default="atss",
        help="its slim form, which learns from scratch in minutes (%(default)s)",
    )
    option(
        "--config-file", type=Path, help="another detector: a config laid out for ranking losses"
    )
    option("--iterations", type=_positive, help="of every run (default: as the config says)")
    option(
        "--evaluations",
        type=_positive,
        default=3,
        help="of every run, the last included (%(default)s)",
    )
    option("--images", type=_positive, help="use the first so many of each split alone")
    option("--lr", help="learning rate for all, or LOSS=RATE,LOSS=RATE")
    option("--jobs", type=_positive, default=1, help="runs at a time (%(default)s)")
    option("--prefix", default="", help="put before every command, such as 'taskset -c 0'")
    option("--output", type=Path, default=Path("output/comparison"), help="folder (%(default)s)")
    option("--quick", action="store_true", help="a look: one seed, 8 iterations, 16 images")
    option("overrides", nargs="*", metavar="key=value", help="for every run, as of train_net.py")
    args = parser.parse_args(argv)
    if args.quick:
        vars(args).update(QUICK)
    return args


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
