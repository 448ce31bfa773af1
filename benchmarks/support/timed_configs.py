"""What the programs that time configs have in common: options, turns, table and CSV file."""

import argparse
import csv
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from detectron2.utils.events import EventStorage
from tabulate import tabulate

from support.machine import ROOT, commit, describe, devices, versions


class Timing(Protocol):
    """Summary of the samples of a config, a dataclass: its fields are a row of the CSV file."""

    def cells(self) -> Sequence[Any]:
        """Return the cells of the printed table."""


class Timed(Protocol):
    """Config that is ready to be timed."""

    def measure(self) -> None:
        """Take one sample."""

    def timing(self, first: Any) -> Timing:
        """Summarize the samples, relative to the first config."""


def parser_of_configs(
    description: str, size: Sequence[int], rounds: str
) -> argparse.ArgumentParser:
    """Return a parser with the common options.

    Args:
        description: what the program does.
        size: default (height, width) in pixels.
        rounds: what is repeated in a round.
    """
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    option = parser.add_argument
    option("--configs", type=Path, nargs="+", required=True, help="the first is the reference")
    option("--size", type=int, nargs=2, default=list(size), help="height and width in pixels")
    option("--rounds", type=int, default=10, help=rounds)
    option("--device", choices=devices(), default=devices()[-1], help="device")
    option("--threads", type=int, help="CPU threads; all if not given")
    option("--output", type=Path, help="CSV file; one of docs/benchmarks if not given")
    option("--quick", action="store_true", help="one tiny image, results to output/")
    return parser


def parse(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    quick: Mapping[str, Any],
    file: str,
) -> argparse.Namespace:
    """Parse the command line.

    Args:
        parser: that of `parser_of_configs`, maybe with more options.
        argv: arguments; those of the process if None.
        quick: values that `--quick` sets.
        file: name of the default CSV file, with `{device}` for the device.
    """
    args = parser.parse_args(argv)
    folder = ROOT / "docs" / "benchmarks"
    if args.quick:
        vars(args).update(quick)
        folder = ROOT / "output"
    args.output = args.output or folder / file.format(device=args.device)
    return args


def compare(
    args: argparse.Namespace,
    prepare: Callable[[Path], Timed],
    headers: Sequence[str],
    settings: Mapping[str, Any],
) -> None:
    """Time the configs in turn, print a table and append to the CSV file.

    Args:
        args: command line.
        prepare: function from the path of a config to what is timed.
        headers: those of the printed table.
        settings: what the CSV file tells beside machine and times.
    """
    if args.threads:
        torch.set_num_threads(args.threads)
    stamp = {"device": describe(args.device), "versions": versions(), "commit": commit()}
    print(f"{stamp['device']}\n{stamp['versions']}, commit {stamp['commit']}", flush=True)
    with EventStorage():
        detectors = [prepare(path) for path in args.configs]
        for _ in range(args.rounds):
            for detector in detectors:
                detector.measure()
    timings = [detector.timing(detectors[0]) for detector in detectors]
    print(tabulate([t.cells() for t in timings], headers, disable_numparse=True))
    _append_rows(args.output, stamp | dict(settings) | {"rounds": args.rounds}, timings)


def _append_rows(path: Path, stamp: Mapping[str, Any], timings: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            names = [field.name for field in dataclasses.fields(timings[0])]
            writer.writerow([*stamp, *names])
        for timing in timings:
            values = (f"{x:.5g}" if isinstance(x, float) else x for x in vars(timing).values())
            writer.writerow([*stamp.values(), *values])
    print(f"{len(timings)} rows added to {path}")
