r"""Train the same detector with several losses on your data, and compare.

    python tools/compare_losses.py --data datasets/shapes --seeds 3
    python tools/compare_losses.py --data train.json,train/,val.json,val/ --losses focal,brs \
        --detector retinanet --iterations 2000 --lr focal=0.002 --jobs 2
    python tools/compare_losses.py --data FOLDER --config-file configs/coco/atss_R_50_FPN_brs_1x.py

All runs of a seed have the same anchors, assignment, initial weights, data in the same order and
number of iterations. Differences that belong to a loss, such as its box loss or a branch that
predicts quality, are printed and written down. Each run is a process of train_net.py. Writes
table.md, table.csv, plot.png and commands.sh. Repeat the command to continue: runs that have
finished are not run again, and losses or seeds can be added.

`ce` is binary cross-entropy of sigmoids in one-stage detectors: it replaces focal loss in its
criterion and is divided by the same number of positives. In an R-CNN it is softmax cross-entropy.
"""

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from detectron2.config import LazyConfig

from brloss_d2.cli.common import positive_int
from brloss_d2.data import CustomData
from brloss_d2.engine import load_config
from brloss_d2.errors import InputError
from comparison.data import Data
from comparison.notes import notes
from comparison.plot import plot
from comparison.recipe import DETECTORS, losses_of, slim_recipe, with_loss
from comparison.report import Study, summary_table, write_csv, write_markdown
from comparison.runs import Run, command, execute, main_metric, outcome, threads
from support.machine import ROOT, commit, describe, versions

DEFAULT_LOSSES = ("ce", "focal", "qfl", "vfl", "mal", "rs", "brs")
QUICK = {"seeds": 1, "iterations": 8, "evaluations": 1, "images": 16}
_PER_RUN = (
    *("loss=", "train.seed=", "train.output_dir="),
    *(f"data.{key.name}=" for key in fields(CustomData)),
)


class Comparison:
    """Runs of a comparison, and their report.

    Args:
        args: arguments of the command line.

    Raises:
        InputError: a mistake in the arguments, in the data, or in a config with one of the losses.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        for text in args.overrides:
            if text.lstrip("+").startswith(_PER_RUN):
                raise InputError(
                    f"{text!r}: every run has its own; see --losses, --data, --seeds and --output."
                )
        self.output: Path = args.output
        self.path = args.config_file or slim_recipe(args.detector)
        data = Data.parse(args.data)
        if args.images:
            data = data.first(args.images, self.output / "data")
        images = data.check_train().images
        self.losses = choose_losses(args.losses, self.path)
        rates = learning_rates(args.lr, self.losses)
        self.configs = {loss: with_loss(self.path, loss, images) for loss in self.losses}
        for loss, cfg in self.configs.items():
            cfg.optimizer.lr = rates.get(loss, cfg.optimizer.lr)
            cfg.train.max_iter = args.iterations or cfg.train.max_iter
            cfg.train.eval_period = -(-cfg.train.max_iter // args.evaluations)
        self.runs: list[Run] = []
        for seed in range(1, args.seeds + 1):
            for loss in self.losses:
                config = self.output / "configs" / f"{loss}.yaml"
                folder = self.output / "runs" / f"{loss}_seed{seed}"
                arguments = ["--config-file", str(config), *data.overrides, f"train.seed={seed}"]
                arguments += [f"train.output_dir={folder}", *args.overrides]
                self.runs.append(Run(loss, seed, config, folder, tuple(arguments)))

    def run(self) -> int:
        """Train, and write tables and picture after each run; return the exit status."""
        self._write_configs()
        self.effective = {
            run.loss: load_config(str(run.config), run.arguments[2:])[0] for run in self.runs
        }
        todo = [run for run in self.runs if not run.is_done()]
        lines = ["#!/bin/sh", "# The trainings that are compared.", "set -e"]
        lines += [f"cd {shlex.quote(str(Path.cwd()))}"]
        lines += [shlex.join(command(run)) for run in self.runs]
        (self.output / "commands.sh").write_text("\n".join(lines) + "\n")
        print("What differs between the losses:")
        print("\n".join(f"- {note}" for note in notes(self.effective)))
        print(f"{len(self.runs)} runs, {len(self.runs) - len(todo)} of them finished", flush=True)
        failures: dict[str, str] = {}
        start = time.perf_counter()
        ended = execute(todo, self.args.jobs, self.args.prefix)
        for number, (run, failure, seconds) in enumerate(ended, start=1):
            if failure:
                failures[run.name] = failure
            gist = failure or _gist(outcome(run).metrics)
            passed = f"{number}/{len(todo)}, {(time.perf_counter() - start) / 60:.1f} min"
            print(f"[{passed}] {run.name}: {gist} ({seconds:.0f} s)", flush=True)
            self._report(failures)
        study = self._report(failures)
        print(f"\n{summary_table(study)}\n\nWrote {self.output}/table.md and what it refers to.")
        return int(bool(failures))

    def _write_configs(self) -> None:
        """Write the config of each loss, but never replace that of a finished run."""
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

    def _report(self, failures: dict[str, str]) -> Study:
        """Write tables and picture of the runs that have finished."""
        args, cfg = self.args, self.effective[self.losses[0]]
        iterations, batch = cfg.train.max_iter, cfg.dataloader.train.total_batch_size
        data = Path(args.data.split(",")[0]).resolve().name
        stem, neck, _ = self.path.stem.partition("_FPN")  # the rest names one of the losses
        path = self.path.absolute()
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        if torch.cuda.is_available():
            hardware = f"{describe('cuda')}, {args.jobs} at a time"
        else:
            name, count = describe("cpu").split(",")[0], threads(args.jobs)
            hardware = f"{name}, {args.jobs} at a time, {count} thread{'s' * (count > 1)} each"
        cut = f", the first {args.images} images of each split" if args.images else ""
        setting = [
            f"detector: {shown}, with the criteria of each loss",
            f"data: {args.data}{cut}",
            f"budget: {iterations} iterations of {batch} images for every loss",
            f"{hardware}; {versions()}; commit {commit()}",
            "every command: commands.sh",
        ]
        if args.overrides:
            setting.insert(3, f"overrides: `{shlex.join(args.overrides)}`")
        study = Study(
            f"Losses compared: {stem}{neck} on {data}, {iterations} iterations",
            self.losses,
            {run: outcome(run) for run in self.runs if run.is_done()},
            failures,
            args.seeds,
            setting,
            notes(self.effective),
        )
        write_csv(study, self.output / "table.csv")
        plot(study, self.output / "plot.png")
        write_markdown(study, self.output / "table.md", "plot.png")
        return study


def _gist(metrics: dict[str, float]) -> str:
    name = main_metric(metrics)
    return f"{name} {metrics[name]:.1f}"


def choose_losses(text: str | None, path: Path) -> list[str]:
    """Split the value of `--losses`; without one, return the default losses of the detector.

    Raises:
        InputError: no names, or a name twice.
    """
    known = losses_of(load_config(str(path))[0])
    if text is None:
        return [loss for loss in DEFAULT_LOSSES if loss in known]
    given = [loss for loss in text.split(",") if loss]
    if not given or len(set(given)) < len(given):
        raise InputError(f"--losses={text}: expected different names from {', '.join(known)}.")
    return given


def learning_rates(text: str | None, losses: Sequence[str]) -> dict[str, float]:
    """Parse the value of `--lr`.

    Args:
        text: value such as `0.001,focal=0.01`, where a rate without name is for all other losses.
        losses: names that are allowed.

    Returns:
        Learning rate by loss.

    Raises:
        InputError: a rate that is not a positive number, or an unknown loss.
    """
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


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    option = parser.add_argument
    data = "folder in COCO's layout, or train.json,train_images,val.json,val_images"
    option("--data", required=True, help=data)
    losses = f"{','.join(DEFAULT_LOSSES)}, as far as the detector knows them"
    option("--losses", help=f"losses; the first is the reference (default: {losses})")
    option("--seeds", type=positive_int, default=3, help="runs per loss (%(default)s)")
    slim = "detector, in a slim form that learns from scratch in minutes (%(default)s)"
    option("--detector", choices=DETECTORS, default="atss", help=slim)
    other = "config of another detector, one with a ranking loss"
    option("--config-file", type=Path, help=other)
    option("--iterations", type=positive_int, help="iterations per run (default: of the config)")
    evaluations = "evaluations per run, the last included (%(default)s)"
    option("--evaluations", type=positive_int, default=3, help=evaluations)
    option("--images", type=positive_int, help="use only the first images of each split")
    option("--lr", help="learning rate for all, or LOSS=RATE,LOSS=RATE")
    option("--jobs", type=positive_int, default=1, help="runs at a time (%(default)s)")
    option("--prefix", default="", help="words before each command, such as 'taskset -c 0'")
    option("--output", type=Path, default=Path("output/comparison"), help="folder (%(default)s)")
    option("--quick", action="store_true", help="a look: one seed, 8 iterations, 16 images")
    option("overrides", nargs="*", metavar="key=value", help="overrides as of train_net.py")
    args = parser.parse_args(argv)
    if args.quick:
        vars(args).update(QUICK)
    return args


if __name__ == "__main__":
    # A scheduler that ends this process ends its trainings too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
