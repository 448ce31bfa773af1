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
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from comparison.comparison import DEFAULT_LOSSES, Comparison
from comparison.recipe import DETECTORS

from brloss_d2.errors import InputError
from brloss_d2.utils.arguments import positive_int

QUICK = {"seeds": 1, "iterations": 8, "evaluations": 1, "images": 16}


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
    option("--seeds", type=positive_int, default=3, help="so many runs of each loss (%(default)s)")
    option(
        "--detector",
        choices=DETECTORS,
        default="atss",
        help="its slim form, which learns from scratch in minutes (%(default)s)",
    )
    option(
        "--config-file", type=Path, help="another detector: a config laid out for ranking losses"
    )
    option("--iterations", type=positive_int, help="of every run (default: as the config says)")
    option(
        "--evaluations",
        type=positive_int,
        default=3,
        help="of every run, the last included (%(default)s)",
    )
    option("--images", type=positive_int, help="use the first so many of each split alone")
    option("--lr", help="learning rate for all, or LOSS=RATE,LOSS=RATE")
    option("--jobs", type=positive_int, default=1, help="runs at a time (%(default)s)")
    option("--prefix", default="", help="put before every command, such as 'taskset -c 0'")
    option("--output", type=Path, default=Path("output/comparison"), help="folder (%(default)s)")
    option("--quick", action="store_true", help="a look: one seed, 8 iterations, 16 images")
    option("overrides", nargs="*", metavar="key=value", help="for every run, as of train_net.py")
    args = parser.parse_args(argv)
    if args.quick:
        vars(args).update(QUICK)
    return args


if __name__ == "__main__":
    # A scheduler that ends the job ends its trainings too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
