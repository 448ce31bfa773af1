"""Write the dataset of colored shapes that `make demo` trains on.

    python tools/make_shapes.py --output datasets/shapes

Writes nothing if the folder has the same parameters already.
"""

import argparse
import sys
from collections.abc import Sequence

from brloss_d2.cli.common import run_program
from brloss_d2.data import CustomDataSummary, check_coco_json, write_shapes


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    return run_program(_write, _parser().parse_args(argv))


def _write(args: argparse.Namespace) -> int:
    written = write_shapes(
        args.output, args.train, args.val, tuple(args.size), args.seed, overwrite=args.overwrite
    )
    print(f"{'Wrote' if written else 'Up to date:'} {args.output}\n{_counts(args.output)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=formatter)
    parser.add_argument("--output", default="datasets/shapes", help="folder to create")
    parser.add_argument("--train", type=int, default=400, help="number of training images")
    parser.add_argument("--val", type=int, default=100, help="number of validation images")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(128, 160),
        metavar=("H", "W"),
        help="size of the images, pixels",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the images")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace shapes with other parameters"
    )
    return parser


def _counts(output: str) -> CustomDataSummary:
    train, val = (
        check_coco_json(f"{output}/annotations/instances_{split}.json", f"{output}/{split}")
        for split in ("train", "val")
    )
    return CustomDataSummary(train=train, val=val)


if __name__ == "__main__":
    sys.exit(main())
