"""Time training iterations of whole detectors, and the share of them that the losses take.

    python tools/benchmark_detectors.py --configs configs/coco/faster_rcnn_R_50_FPN_{ce,rs}_1x.py

Compares the configs in turn with the first, on noise with made-up objects and random weights, so
that it needs no data: what an iteration costs early in training. Without data loading. Appends to
a CSV file and prints a table; see docs/benchmarks/README.md.
"""

import argparse
import csv
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from benchmark.detectors import Timing, compare
from benchmark.machine import ROOT, commit, describe, versions
from tabulate import tabulate

QUICK = {"images": 1, "size": [96, 128], "objects": 3, "rounds": 2}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"{describe(args.device)}\n{versions()}, commit {commit()}", flush=True)
    timings = compare(
        args.configs,
        args.device,
        images=args.images,
        size=tuple(args.size),
        objects=args.objects,
        rounds=args.rounds,
    )
    print(_table(timings))
    _append(args, timings)
    return 0


def _table(timings: list[Timing]) -> str:
    headers = (
        "config",
        "iteration ms",
        "20 %",
        "80 %",
        "x first",
        "losses ms",
        "share",
        "peak MiB",
    )
    rows = [
        (
            t.name,
            *(f"{x:.1f}" for x in (t.iteration_ms, t.p20_ms, t.p80_ms)),
            f"{t.ratio:.3f}",
            f"{t.criteria_ms:.1f}",
            f"{t.criteria_ms / t.iteration_ms:.1%}",
            t.peak_mib and round(t.peak_mib),
        )
        for t in timings
    ]
    return tabulate(rows, headers, disable_numparse=True)


def _append(args: argparse.Namespace, timings: list[Timing]) -> None:
    stamp = {
        "device": describe(args.device),
        "versions": versions(),
        "commit": commit(),
        "images": args.images,
        "height": args.size[0],
        "width": args.size[1],
        "objects": args.objects,
        "rounds": args.rounds,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    new = not args.output.exists()
    with args.output.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = [*stamp, *(field.name for field in dataclasses.fields(Timing))]
        if new:
            writer.writerow(columns)
        for timing in timings:
            values = (f"{x:.5g}" if isinstance(x, float) else x for x in vars(timing).values())
            writer.writerow([*stamp.values(), *values])
    print(f"{len(timings)} rows added to {args.output}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=formatter)
    option = parser.add_argument
    option("--configs", type=Path, nargs="+", required=True, help="the first is compared with")
    option("--images", type=int, default=4, help="in an iteration")
    option("--size", type=int, nargs=2, default=[800, 1333], help="height and width in pixels")
    option("--objects", type=int, default=7, help="in an image")
    option("--rounds", type=int, default=10, help="iterations timed of each")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    option("--device", choices=["cpu", "cuda"], default=device, help="where")
    option("--threads", type=int, help="of the CPU; all if not given")
    option(
        "--output", type=Path, help="CSV file; docs/benchmarks/detectors_<device>.csv if not given"
    )
    option("--quick", action="store_true", help="one tiny image, to output/")
    args = parser.parse_args(argv)
    folder = ROOT / "docs" / "benchmarks"
    if args.quick:
        vars(args).update(QUICK)
        folder = ROOT / "output"
    args.output = args.output or folder / f"detectors_{args.device}.csv"
    return args


if __name__ == "__main__":
    sys.exit(main())
