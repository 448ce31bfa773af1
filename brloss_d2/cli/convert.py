"""Convert a published mmdetection checkpoint for this package, or one of this package back.

    %(prog)s published.pth converted.pth
    %(prog)s output/a/model_final.pth for_mmdetection.pth
    %(prog)s resnet101-63fe2227.pth backbone.pth

The direction and, unless it is given, the architecture are recognized from the names of the
weights. On the way back FoveaBox, whose weights are named like those of RetinaNet, needs
`--architecture fovea`. The program refuses a checkpoint unless it has all weights of the
architecture and no others; with a config, unless their shapes fit its model too. Values are copied
bit for bit.
"""

import argparse
import sys
from collections.abc import Sequence

from brloss_d2.cli.common import find_config, make_parser, run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("source", help="checkpoint to read")
    parser.add_argument("target", help="checkpoint to write")
    parser.add_argument(
        "--architecture",
        metavar="NAME",
        help="faster_rcnn, atss, ... (default: recognized from the weights; an unknown name lists "
        "all)",
    )
    parser.add_argument(
        *("--config-file", "--config"),
        help="file or name in the model zoo, whose model the shapes are checked against",
    )
    return run_program(_convert, parser.parse_args(argv))


def _convert(args: argparse.Namespace) -> int:
    import torch

    from brloss_d2.checkpoint import check_fit, convert_file, from_mmdetection
    from brloss_d2.utils.files import check_folder_of, replacing

    check_folder_of(args.target)
    conversion = convert_file(args.source, args.architecture)
    if args.config_file:
        from detectron2.config import instantiate

        from brloss_d2.engine import load_config

        cfg, _ = load_config(find_config(args.config_file), ())
        ours = conversion.weights
        if not conversion.is_ours:
            ours = from_mmdetection(ours, conversion.architecture)
        check_fit(ours, instantiate(cfg.model))
    with replacing(args.target) as temporary, open(temporary, "wb") as file:
        torch.save(conversion.checkpoint(), file)
    if not conversion.is_ours:
        print(f"note: {args.source} is of brloss_d2, which needs no conversion to read it.")
    for warning in conversion.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    whose = "brloss_d2" if conversion.is_ours else "mmdetection"
    numbers = sum(weight.numel() for weight in conversion.weights.values())
    print(
        f"{conversion.title}: {len(conversion.weights)} tensors, {numbers:,} numbers, under the "
        f"names of {whose} in {args.target}"
    )
    return 0
