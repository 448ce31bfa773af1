"""Time the ranking losses next to focal loss, the published algorithms and the copy bandwidth.

    python benchmarks/losses.py            # on the GPU if there is one, else on the CPU
    python benchmarks/losses.py --quick    # a look, under a minute

Writes `<name>.csv`, a summary `<name>.md`, and the pictures `<name>_time.png` and
`<name>_ratio.png`. Cells that have a row in the CSV file are not measured again: stop at any time,
continue with the same command, and delete rows to measure them again. See
docs/benchmarks/README.md.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

# Without it, the library of the profiler reports a missing GPU as an error.
os.environ.setdefault("KINETO_LOG_LEVEL", "5")

import torch
from tabulate import tabulate

from brloss_d2.ops import Backend, set_backend
from grid import plots, table
from grid.measure import Grid, measure_missing
from grid.summary import summarize
from grid.table import OK, Row
from support.contenders import CONTENDERS
from support.machine import ROOT, commit, describe, devices, versions
from support.problems import SOURCES

QUICK = {"sizes": [10_000], "positives": [0.001, 0.05], "rounds": 3, "limit": 20.0}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    set_backend(args.backend)
    print(f"{describe(args.device)}\n{versions()}, commit {commit()}", flush=True)
    path = args.output / f"{args.name or args.device}.csv"
    grid = Grid(
        sizes=sorted(map(int, args.sizes)),
        shares=sorted(args.positives),
        sources=args.scores,
        losses=args.losses,
        device=args.device,
        rounds=args.rounds,
        limit=args.limit,
    )
    try:
        for rows in measure_missing(grid, path):
            _print(rows)
        rows = table.read(path)
    except ValueError as error:
        print(f"error: {error}; choose another --name", file=sys.stderr)
        return 1
    plots.plot_times(rows, path.with_name(f"{path.stem}_time.png"))
    plots.plot_ratios(rows, path.with_name(f"{path.stem}_ratio.png"))
    path.with_suffix(".md").write_text(f"# {path.stem}\n\n{summarize(rows)}")
    print(f"{len(rows)} cells in {path}, summary and plots next to it")
    return 0


def _print(rows: list[Row]) -> None:
    """Print the rows of one problem."""
    first = rows[0]
    head = f"\n{first.logits:,} logits, {first.positives:,} positive, scores {first.scores}"
    lines = [
        (r.loss, r.forward_ms, r.backward_ms, r.both_ms, r.x_focal, r.extra_mib)
        if r.status == OK
        else (r.loss, r.status)
        for r in rows
    ]
    headers = ("loss", "forward ms", "backward ms", "both ms", "x focal", "extra MiB")
    print(f"{head}\n{tabulate(lines, headers, floatfmt='.2f')}", flush=True)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=formatter)
    option = parser.add_argument
    option(
        "--sizes",
        type=float,
        nargs="+",
        default=[1e4, 1e5, 1e6, 1e7, 2.15e7],
        help="numbers of logits",
    )
    option(
        "--positives",
        type=float,
        nargs="+",
        default=[0.001, 0.01, 0.02, 0.05],
        help="shares of positives",
    )
    option("--scores", nargs="+", choices=SOURCES, default=SOURCES[:4], help="distributions")
    option("--losses", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help="contenders")
    option("--rounds", type=int, default=20, help="largest number of samples per cell")
    option("--limit", type=float, default=20.0, help="seconds per cell; longer ones are skipped")
    option("--device", choices=devices(), default=devices()[-1], help="device")
    option("--backend", choices=get_args(Backend), default="auto", help="back-end of our losses")
    option("--threads", type=int, help="CPU threads; all if not given")
    option("--output", type=Path, default=ROOT / "docs" / "benchmarks", help="folder")
    option("--name", help="name of the files; the device if not given")
    option("--quick", action="store_true", help="one small size, results to output/benchmark_quick")
    args = parser.parse_args(argv)
    if args.quick:
        output = args.output if args.output != parser.get_default("output") else None
        vars(args).update(QUICK, output=output or ROOT / "output" / "benchmark_quick")
    return args


if __name__ == "__main__":
    sys.exit(main())
