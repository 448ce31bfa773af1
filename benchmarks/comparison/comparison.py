"""A comparison from the command line to the report."""

import argparse
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import LazyConfig
from support.machine import ROOT, commit, describe, versions

from brloss_d2.engine import load_config
from brloss_d2.errors import InputError
from comparison.data import Data
from comparison.notes import notes
from comparison.plot import plot
from comparison.recipe import losses_of, slim_recipe, with_loss
from comparison.report import Study, summary_table, write_csv, write_markdown
from comparison.runs import Run, command, execute, outcome, threads

DEFAULT_LOSSES = ("ce", "focal", "qfl", "vfl", "mal", "rs", "brs")
_PER_RUN = ("data.", "train.seed=", "train.output_dir=")


class Comparison:
    """What a command line asks for.

    Args:
        args: of the command line of `tools/compare_losses.py`.

    Raises:
        InputError: a mistake in them, or in the data, or in a config with one of the losses.
    """

    def __init__(self, args: argparse.Namespace):
        self.args = args
        _check_overrides(args.overrides)
        self.output: Path = args.output
        self.path = args.config_file or slim_recipe(args.detector)
        self.data = Data.parse(args.data)
        if args.images:
            self.data = self.data.first(args.images, self.output / "data")
        images = self.data.check_train().images
        self.losses = _losses(args.losses, self.path)
        rates = learning_rates(args.lr, self.losses)
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
        print("What differs between the losses:")
        print("\n".join(f"- {note}" for note in notes(self.effective)))
        print(f"{len(self.runs)} runs, {len(self.runs) - len(todo)} of them finished", flush=True)
        failures = self._train(todo)
        study = self._report(failures)
        print(f"\n{summary_table(study)}\n\nWrote {self.output}/table.md and what it refers to.")
        return int(bool(failures))

    def _train(self, todo: Sequence[Run]) -> dict[str, str]:
        """Train, say how it goes, and return what went wrong by the name of the run."""
        failures: dict[str, str] = {}
        start = time.perf_counter()
        ended = execute(todo, self.args.jobs, self.args.prefix)
        for number, (run, failure, seconds) in enumerate(ended, start=1):
            if failure:
                failures[run.name] = failure
            gist = failure or f"AP {outcome(run).metrics['AP']:.1f}"
            passed = f"{number}/{len(todo)}, {(time.perf_counter() - start) / 60:.1f} min"
            print(f"[{passed}] {run.name}: {gist} ({seconds:.0f} s)", flush=True)
            self._report(failures)
        return failures

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
        name = Path(self.args.data.split(",")[0]).resolve().name
        stem, neck, _ = self.path.stem.partition("_FPN")  # what follows names one of the losses
        title = f"{stem}{neck} on {name}, {iterations} iterations"
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
            notes(self.effective),
        )


def _check_overrides(overrides: Sequence[str]) -> None:
    for text in overrides:
        if text.lstrip("+").startswith(_PER_RUN):
            raise InputError(f"{text!r}: every run has its own; see --data, --seeds and --output.")


def _losses(text: str | None, path: Path) -> list[str]:
    known = losses_of(load_config(str(path))[0])
    if text is None:
        return [loss for loss in DEFAULT_LOSSES if loss in known]
    given = [loss for loss in text.split(",") if loss]
    if not given or len(set(given)) < len(given):
        raise InputError(f"--losses={text}: expected different names from {', '.join(known)}.")
    return given


def learning_rates(text: str | None, losses: Sequence[str]) -> dict[str, float]:
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


def _hardware(jobs: int) -> str:
    if torch.cuda.is_available():
        return f"{describe('cuda')}, {jobs} at a time"
    name, count = describe("cpu").split(",")[0], threads(jobs)
    return f"{name}, {jobs} at a time, {count} thread{'s' * (count > 1)} each"


def _shown(path: Path) -> str:
    path = path.absolute()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
