r"""Train or evaluate a detector.

    %(prog)s --config coco/faster_rcnn_R_50_FPN_brs_1x --num-gpus 8
    %(prog)s --config CONFIG --resume train.output_dir=output/a
    %(prog)s --config output/a/config.yaml --eval-only
    %(prog)s --config CONFIG data.train=a.json data.train_images=a/ \
        data.val=b.json data.val_images=b/ optimizer.lr=0.01 train.amp.enabled=True
    torchrun --nproc-per-node 8 -m brloss_d2.cli.train --config CONFIG

CONFIG is a name in the model zoo (brloss-configs lists them) or a file: a config in Python, or the
config.yaml of a run. docs/training.md explains every `train.*` key.
"""

import argparse
import sys
from collections.abc import Sequence

from brloss_d2.cli.common import find_config, make_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    Status 1 is a mistake of the user or a training that has diverged, told in one message; 128 + N
    is a training stopped by signal N.
    """
    parser = make_parser(__doc__)
    parser.add_argument(
        *("--config-file", "--config"),
        default="",
        metavar="CONFIG",
        help="config file, config.yaml of a run, or name in the model zoo",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue from the last checkpoint of the folder"
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate instead of training")
    parser.add_argument(
        "--num-gpus", type=int, default=1, help="processes of this machine, one per GPU"
    )
    parser.add_argument("--num-machines", type=int, default=1, help="number of machines")
    parser.add_argument(
        "--machine-rank", type=int, default=0, help="number of this machine, from 0 on"
    )
    parser.add_argument(
        "--dist-url",
        default="auto",  # a free port, so that two runs do not collide
        help="address where processes meet, tcp://ADDRESS:PORT of machine 0 (default: auto)",
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY=VALUE",
        help="changes to the config, after all options",
    )
    args = parser.parse_args(argv)
    from brloss_d2.engine import run

    try:
        run(_train, args)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _train(args: argparse.Namespace) -> None:
    """Train in one of the processes, which all import this function."""
    from brloss_d2 import engine

    if args.config_file:
        args.config_file = engine.in_agreement(lambda: find_config(args.config_file))
    engine.main(args)


if __name__ == "__main__":
    sys.exit(main())
