r"""Train the same detector with several losses on your data, and compare.

    python tools/compare_losses.py --data datasets/shapes --seeds 3
    python tools/compare_losses.py --data datasets/shapes --lr-grid 3 --metric bbox/AP --jobs 2
    python tools/compare_losses.py --data train.json,train/,val.json,val/ --losses focal,brs \
        --detector retinanet --iterations 2000 --lr focal=0.002
    python tools/compare_losses.py --data FOLDER --config-file configs/coco/atss_R_50_FPN_brs_1x.py

All runs of a seed have the same anchors, assignment, initial weights, data in the same order and
number of iterations. Differences that belong to a loss, such as its box loss or a branch that
predicts quality, are printed and written down. Each run is a process of train_net.py. Writes
table.md, table.csv, runs.csv, plot.png and commands.sh. Repeat the command to continue: runs that
have finished are not run again, and losses or seeds can be added.

With --lr-grid or --lr-factors each loss is trained with as many learning rates as the others. The
rate is chosen by the mean of --metric on the validation split. What is reported is measured on a
split to test on, which nothing was chosen on: annotations/instances_test.json and test/ of the
folder, test.json,test/ after the other paths, or else a part of the validation split.

Several --data, --detector, --config-file or --vary are compared each with each, in folders of their
own, with one table of all.

`ce` is binary cross-entropy of sigmoids in one-stage detectors: it replaces focal loss in its
criterion and is divided by the same number of positives. In an R-CNN it is softmax cross-entropy.
"""

import argparse
import math
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from brloss_d2.cli.common import fraction, positive_int
from brloss_d2.errors import InputError
from comparison.cases import Case, cases, check_output, data_name
from comparison.notes import notes
from comparison.plan import DEFAULT_LOSSES, Plan
from comparison.plot import plot
from comparison.recipe import DETECTORS
from comparison.report import (
    METRICS,
    SECONDS,
    Study,
    summary_table,
    write_csv,
    write_markdown,
    write_overview,
    write_runs,
)
from comparison.runs import PREFIXES, Outcome, Run, command, execute, main_metric, outcome, threads
from comparison.tested import intervals, metrics_of_test
from comparison.tuning import Tuning
from support.machine import ROOT, commit, describe, versions

QUICK = {"seeds": 1, "iterations": 8, "evaluations": 1, "images": 16}


class Comparison:
    """Execution of a plan, and its report.

    Args:
        args: arguments of the command line.
        case: data, detector and settings of the comparison.

    Raises:
        InputError: a mistake in the arguments, in the data, or in a config with one of the losses.
    """

    def __init__(self, args: argparse.Namespace, case: Case) -> None:
        self.args, self.case, self.plan = args, case, Plan(args, case)
        self.output = self.plan.output
        self.failures: dict[str, str] = {}
        self._tested: dict[Run, Outcome] = {}

    def run(self) -> Study:
        """Train and test, and write tables and picture after each run."""
        plan = self.plan
        self.effective = plan.write_configs()
        print("What differs between the losses:")
        print("\n".join(f"- {note}" for note in notes(self.effective, plan.factors)))
        self._execute(plan.trials, "runs")
        if plan.tunes:
            self._execute(self.chosen(), "runs with the best learning rates")
        if plan.data.test:
            self._execute(list(self.tests().values()), "evaluations on the images to test on")
        study = self._report(with_intervals=True)
        print(f"\n{summary_table(study)}\n\nWrote {self.output}/table.md and what it refers to.")
        return study

    def tuning(self) -> Tuning:
        """Return what the trainings for the choice of the learning rates have shown so far."""
        ended = [run for run in self.plan.trials if run.is_done()]
        found = {run: None if run.diverged else self._outcome(run) for run in ended}
        metrics = [x.metrics for x in found.values() if x is not None] or [{}]
        metric = self.plan.metric or main_metric(metrics[0])
        return Tuning(metric, self.plan.factors, self.plan.rates, found)

    def chosen(self) -> list[Run]:
        """Return the trainings with the best learning rate of each loss whose trials have ended."""
        plan, tuning = self.plan, self.tuning()
        rates = {loss: plan.rates[loss][0] for loss in plan.losses}
        if plan.tunes:
            open_ = {run.loss for run in plan.trials if not run.is_done()}
            rates = {loss: tuning.best(loss) for loss in plan.losses if loss not in open_}
        return [plan.training(loss, rates[loss], seed) for seed in plan.seeds for loss in rates]

    def tests(self) -> dict[Run, Run]:
        """Return the evaluations on the images to test on, if there are any, by training."""
        if self.plan.data.test is None:
            return {}
        overrides = self.plan.data.test_overrides
        finished = [run for run in self.chosen() if run.is_done() and not run.diverged]
        return {run: run.test(overrides) for run in finished}

    def runs(self) -> list[Run]:
        """Return all trainings and evaluations that are known so far."""
        return list(dict.fromkeys([*self.plan.trials, *self.chosen(), *self.tests().values()]))

    def _execute(self, runs: Sequence[Run], what: str) -> None:
        """Execute those of the runs that have not finished, and report after each."""
        todo = [run for run in runs if not run.is_done()]
        self._write_commands()
        print(f"{len(runs)} {what}, {len(runs) - len(todo)} of them finished", flush=True)
        start = time.perf_counter()
        ended = execute(todo, self.args.jobs, self.args.prefix)
        for number, (run, failure, seconds) in enumerate(ended, start=1):
            if failure and not run.has_ended():
                self.failures[run.name] = failure
            gist = failure or self._gist(self._outcome(run).metrics)
            passed = f"{number}/{len(todo)}, {(time.perf_counter() - start) / 60:.1f} min"
            print(f"[{passed}] {run.name}: {gist} ({seconds:.0f} s)", flush=True)
            self._report()

    def _write_commands(self) -> None:
        """Write the commands of all runs that are known so far."""
        lines = ["#!/bin/sh", "# The trainings that are compared.", "set -e"]
        lines += [f"cd {shlex.quote(str(Path.cwd()))}"]
        lines += [shlex.join(command(run)) for run in self.runs()]
        (self.output / "commands.sh").write_text("\n".join(lines) + "\n")

    def _outcome(self, run: Run) -> Outcome:
        """Return the outcome of a run that has finished, and not diverged."""
        if not run.is_test:
            return outcome(run, self.plan.metric, self.args.rare)
        if run not in self._tested:
            file, limit = str(self.plan.data.test), self._limit(run.loss)
            metrics = metrics_of_test(run, file, limit, self.args.rare)
            self._tested[run] = Outcome(metrics, math.nan)
        return self._tested[run]

    def _gist(self, metrics: Mapping[str, float]) -> str:
        name = self.plan.metric or main_metric(metrics)
        return f"{name} {metrics[name]:.1f}"

    def _report(self, *, with_intervals: bool = False) -> Study:
        """Write tables and picture of the runs that have finished."""
        study = self._study()
        if with_intervals:  # which take seconds
            study = replace(study, intervals=self._intervals(study))
        write_csv(study, self.output / "table.csv")
        write_runs(self.rows(), self.output / "runs.csv")
        plot(study, self.output / "plot.png")
        write_markdown(study, self.output / "table.md", "plot.png")
        return study

    def _study(self) -> Study:
        plan, chosen = self.plan, self.chosen()
        ended = [run for run in chosen if run.is_done()]
        diverged = {run.name: run.diverged for run in ended if run.diverged}
        outcomes = {run: self._outcome(run) for run in ended if not run.diverged}
        if plan.data.test:
            outcomes = {
                run: replace(outcomes[run], metrics=self._outcome(test).metrics)
                for run, test in self.tests().items()
                if test.is_done()
            }
        iterations = self.effective[plan.losses[0]].train.max_iter
        stem, neck, _ = self.case.config.stem.partition("_FPN")  # the rest names one of the losses
        what = f"{stem}{neck} on {data_name(self.case.data)}"
        return Study(
            f"Losses compared: {what}, {iterations} iterations",
            plan.losses,
            outcomes,
            {**self.failures, **diverged},
            self.args.seeds,
            self._setting(),
            notes(self.effective, plan.factors),
            plan.metric,
            self.tuning() if plan.tunes else None,
        )

    def _intervals(self, study: Study) -> dict[str, dict[str, tuple[float, float]]]:
        tests, data = self.tests(), self.plan.data
        runs = [tests.get(run, run) for run in study.outcomes]
        reference, truth = study.losses[0], str(data.test or data.val)
        task = "segm" if study.main.startswith(PREFIXES["segm"]) else "bbox"
        return intervals(runs, reference, truth, self._limit(reference), self.args.rare, task)

    def _limit(self, loss: str) -> int:
        """Return how many detections count per image."""
        return self.effective[loss].dataloader.evaluator.get("max_dets_per_image") or 100

    def _setting(self) -> list[str]:
        """Return facts about detector, data, budget and machine, a line each."""
        args, plan, cfg = self.args, self.plan, self.effective[self.plan.losses[0]]
        iterations, batch = cfg.train.max_iter, cfg.dataloader.train.total_batch_size
        path = self.case.config.absolute()
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        if torch.cuda.is_available():
            hardware = f"{describe('cuda')}, {args.jobs} at a time"
        else:
            name, count = describe("cpu").split(",")[0], threads(args.jobs)
            hardware = f"{name}, {args.jobs} at a time, {count} thread{'s' * (count > 1)} each"
        cut = f", the first {args.images} images of each split" if args.images else ""
        lines = [
            f"detector: {shown}, with the criteria of each loss",
            f"data: {self.case.data}{cut}",
        ]
        if plan.data.test:
            counts = {split: len(plan.data.images(split)) for split in ("train", "val", "test")}
            lines.append(
                f"{counts['train']} images to train with, {counts['val']} to choose the learning "
                f"rate on ({plan.data.val}), {counts['test']} to test on ({plan.data.test})"
            )
        lines.append(f"budget: {iterations} iterations of {batch} images for every loss")
        if plan.tunes:
            trials = len(plan.trials) // len(plan.losses)
            lines[-1] += f", {trials} trainings for the choice of its learning rate"
        if plan.overrides:
            lines.append(f"overrides: `{shlex.join(plan.overrides)}`")
        return [
            *lines,
            f"{hardware}; {versions()}; commit {commit()}",
            "every command: commands.sh",
        ]

    def rows(self) -> list[dict[str, object]]:
        """Return what `runs.csv` says of each run that has finished."""
        chosen = self.chosen()
        found = []
        for run in filter(Run.is_done, self.runs()):
            rate = run.rate or self.effective[run.loss].optimizer.lr
            row: dict[str, object] = {
                "data": data_name(self.case.data),
                "detector": self.case.config.stem,
                "settings": shlex.join(self.case.varied),
                "loss": run.loss,
                "seed": run.seed,
                "learning rate": f"{rate:g}",
                "factor": f"{rate / self.plan.configs[run.loss].optimizer.lr:g}",
                "images": "test" if run.is_test else "val",
                "chosen": int(run.is_test or run in chosen),
                "diverged": int(bool(run.diverged)),
            }
            if not run.diverged:
                result = self._outcome(run)
                values = {**result.metrics, SECONDS: result.seconds}
                known = {name: values.get(name, math.nan) for name in (*METRICS, SECONDS)}
                row.update({n: f"{value:.4f}" for n, value in known.items() if value == value})
            found.append(row)
        return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 1 if a run has failed."""
    args = _parse(argv)
    try:
        found = cases(args)
        check_output(args.output, several=len(found) > 1)
        comparisons = [Comparison(args, case) for case in found]
        studies: dict[str, Study] = {}
        for comparison in comparisons:
            studies[comparison.case.name] = comparison.run()
            if comparison.case.name:
                rows = [row for c in comparisons[: len(studies)] for row in c.rows()]
                write_runs(rows, args.output / "runs.csv")
                write_overview(studies, args.output / "table.md")
        return int(any(study.failures for study in studies.values()))
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
    data = "folder in COCO's layout, or train.json,train_images,val.json,val_images[,test.json,...]"
    option("--data", required=True, action="append", metavar="DATA", help=data)
    losses = f"{','.join(DEFAULT_LOSSES)}, as far as the detector knows them"
    option("--losses", help=f"losses; the first is the reference (default: {losses})")
    option("--seeds", type=positive_int, default=3, help="runs per loss (%(default)s)")
    slim = "detector, in a slim form that learns from scratch in minutes (atss)"
    option("--detector", choices=DETECTORS, action="append", help=slim)
    other = "config of another detector, one with a ranking loss"
    option("--config-file", type=Path, action="append", help=other)
    vary = "setting to compare the losses with each value of"
    option("--vary", action="append", default=[], metavar="KEY=A,B", help=vary)
    option("--iterations", type=positive_int, help="iterations per run (default: of the config)")
    evaluations = "evaluations per run, the last included (%(default)s)"
    option("--evaluations", type=positive_int, default=3, help=evaluations)
    option("--images", type=positive_int, help="use only the first images of each split")
    option("--lr", help="learning rate for all, or LOSS=RATE,LOSS=RATE")
    grid = "number of learning rates per loss, halved and doubled (%(default)s)"
    option("--lr-grid", type=positive_int, default=1, metavar="N", help=grid)
    option("--lr-factors", metavar="F,F", help="factors of the learning rate instead")
    tune = "seeds that all learning rates are trained with (default: all)"
    option("--tune-seeds", type=positive_int, metavar="N", help=tune)
    option(
        "--metric", help="metric of choice and comparison (bbox/AP, or segm/AP if there are masks)"
    )
    part = "part of the validation images to test on if there are no others (%(default)s)"
    option("--test-fraction", type=fraction, default=0.5, metavar="0.x", help=part)
    option(
        "--rare",
        type=lambda text: text.split(","),
        default=[],
        metavar="CLASS,CLASS",
        help="classes whose AP is reported apart from that of the others",
    )
    option("--jobs", type=positive_int, default=1, help="runs at a time (%(default)s)")
    option("--prefix", default="", help="words before each command, such as 'taskset -c 0'")
    option("--output", type=Path, default=Path("output/comparison"), help="folder (%(default)s)")
    option("--quick", action="store_true", help="a look: one seed, 8 iterations, 16 images")
    option("overrides", nargs="*", metavar="key=value", help="overrides as of train_net.py")
    if parser.parse_args(argv).quick:
        parser.set_defaults(**QUICK)
    args = parser.parse_args(argv)
    if args.tune_seeds and not (args.lr_factors or args.lr_grid > 1):
        parser.error("--tune-seeds: give --lr-grid or --lr-factors, whose rates are trained")
    if args.tune_seeds and args.tune_seeds > args.seeds:
        parser.error(f"--tune-seeds={args.tune_seeds}: expected no more than --seeds={args.seeds}")
    program, *_ = [*shlex.split(args.prefix), ""]
    if program and not shutil.which(program):
        parser.error(f"--prefix: there is no program {program!r}")
    return args


if __name__ == "__main__":
    # A scheduler that ends this process ends its trainings too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
