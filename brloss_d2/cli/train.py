r"""Train or evaluate a detector.

    %(prog)s --config coco/faster_rcnn_R_50_FPN_brs_1x --num-gpus 8
    %(prog)s --config FILE --resume train.output_dir=output/a
    %(prog)s --config output/a/config.yaml --eval-only
    %(prog)s --config FILE data.train=a.json data.train_images=a/ \
        data.val=b.json data.val_images=b/ optimizer.lr=0.01 train.amp.enabled=True
    torchrun --nproc-per-node 8 -m brloss_d2.cli.train --config FILE

FILE may be a name in the model zoo, which brloss-configs lists. Short keys, for every detector:

    loss=rs                  loss of all its parts: rs, brs, ce, focal, ...
    backbone=mobilenet_v2    another network below the feature pyramid, of torchvision or timm
    data.short_side=512      shorter side of the images in pixels, max_size in proportion
    data.batch_size=4        images per batch, of all GPUs
    data.augment=strong      augmentation: none, light, strong or aerial
    data.repeat_rare=0.1     images with classes that are in fewer of the images are repeated
    train.epochs=24          length of the training; the schedule follows
    train.layer_decay=0.8    lower learning rates for the lower layers of the backbone
    data.val_fraction=0.2    part of data.train to evaluate on, instead of data.val
    test.augmentation=True   evaluation and prediction in several sizes and mirrored
    test.tile=640            evaluation and prediction in tiles, for large images
    test.overlap=0.2         part of a tile that the next one shares
    test.submission=NAME     evaluation writes the files that the server of COCO takes

docs/training.md describes these and the keys of a config.
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
        metavar="FILE",
        help="config file, config.yaml of a run, or name in the model zoo",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the last checkpoint in train.output_dir, if there is one",
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate without training")
    parser.add_argument(
        "--num-gpus", type=int, default=1, help="processes per machine (default: 1)"
    )
    parser.add_argument("--num-machines", type=int, default=1, help="default: 1")
    parser.add_argument(
        "--machine-rank", type=int, default=0, help="number of this machine, from 0 (default: 0)"
    )
    parser.add_argument(
        "--dist-url",
        default="auto",
        help="address of the first process, tcp://HOST:PORT, if there are several machines "
        "(default: auto, a free port of this machine)",
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY=VALUE",
        help="changes to the config, after all options; data.train=FILE.json and the like train on "
        "a custom dataset",
    )
    args = parser.parse_args(argv)
    try:
        from brloss_d2.engine import run

        run(train, args, check)
    except SystemExit as end:
        return int(end.code or 0)
    except KeyboardInterrupt:  # while Python imports
        return 130
    return 0


def train(args: argparse.Namespace) -> None:
    """Train or evaluate as the arguments say, in each process of a run."""
    from brloss_d2.engine import in_agreement
    from brloss_d2.engine import main as train_or_evaluate

    if args.config_file:
        args.config_file = in_agreement(lambda: find_config(args.config_file))
    train_or_evaluate(args)


def check(args: argparse.Namespace) -> None:
    """Check the arguments before several processes are started."""
    from brloss_d2.engine.prepare import check_processes

    if args.config_file:
        args.config_file = find_config(args.config_file)
    check_processes(args)


if __name__ == "__main__":
    sys.exit(main())
