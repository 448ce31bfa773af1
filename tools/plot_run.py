"""Draw loss, AP and score distributions of training runs into one picture.

    python tools/plot_run.py output/brs output/ce --output runs.png

Works while a run is going on. The scores are those of the last evaluation.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from brloss_d2.cli.common import run_program
from brloss_d2.errors import InputError
from brloss_d2.plotting.run_plots import TrainedRun, plot_runs


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    return run_program(_plot, _parser().parse_args(argv))


def _plot(args: argparse.Namespace) -> int:
    picture = args.output or os.path.join(args.output_dirs[0], "run.png")
    names = _names(args.output_dirs)
    runs = [TrainedRun.load(*run) for run in zip(args.output_dirs, names, strict=True)]
    plot_runs(runs, picture)
    for run in runs:
        if run.matches is None:
            print(f"{run.name}: no scores: {run.reason}")
    print(f"picture: {picture}")
    return 0


def _names(output_dirs: Sequence[str]) -> list[str]:
    """Return the shortest last parts of the paths that are distinct.

    Raises:
        InputError: a folder is named twice.
    """
    parts = [os.path.abspath(path).split(os.sep) for path in output_dirs]
    for length in range(1, max(map(len, parts)) + 1):
        names = [os.sep.join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise InputError("A run is named twice: expected different folders.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output_dirs", nargs="+", metavar="RUN", help="train.output_dir of a run")
    parser.add_argument("--output", help="picture (default: run.png in the first folder)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
