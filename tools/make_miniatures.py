"""Write miniatures of COCO, LVIS v1 and Cityscapes under detectron2's built-in names.

    python tools/make_miniatures.py --output datasets/miniatures
    DETECTRON2_DATASETS=datasets/miniatures python train_net.py --config-file ...

Colored shapes stand for three classes, so that a recipe, a change of the code or an installation
can be tried in seconds. The metrics mean nothing.
"""

import argparse
import sys
from collections.abc import Sequence

from brloss_d2.cli.common import run_program
from brloss_d2.data import write_miniatures


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    return run_program(_write, _parser().parse_args(argv))


def _write(args: argparse.Namespace) -> int:
    write_miniatures(args.output, args.train, args.val, tuple(args.size), args.seed)
    print(f"Wrote {args.output}: {args.train} images to train on and {args.val} to validate, each")
    print(f"of COCO, LVIS v1 and Cityscapes. To use them: export DETECTRON2_DATASETS={args.output}")
    return 0


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=formatter)
    parser.add_argument("--output", default="datasets/miniatures", help="folder to create")
    parser.add_argument(
        "--train", type=int, default=6, help="number of training images per dataset"
    )
    parser.add_argument(
        "--val", type=int, default=4, help="number of validation images per dataset"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(96, 128),
        metavar=("H", "W"),
        help="size of the images, pixels",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the images")
    return parser


if __name__ == "__main__":
    sys.exit(main())
