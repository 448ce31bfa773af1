"""Convert a published mmdetection checkpoint for this package, or one of this package back.

    python tools/convert_checkpoint.py published.pth converted.pth
    python tools/convert_checkpoint.py output/a/model_final.pth for_mmdetection.pth
    python tools/convert_checkpoint.py resnet101-63fe2227.pth backbone.pth

The direction and, unless it is given, the architecture are recognized by the names of the weights;
on the way back FoveaBox, which has the names of RetinaNet, needs `--architecture fovea`.
Refuses unless all weights of the architecture are there and no others; with a config, unless their
shapes are those of its model too. Values stay as they are, bit for bit.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import torch
from detectron2.config import instantiate

from brloss_d2.checkpoint import (
    ARCHITECTURES,
    Conversion,
    check_fit,
    convert_file,
    from_mmdetection,
    replacing,
)
from brloss_d2.engine import load_config
from brloss_d2.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(argv)
    try:
        conversion = convert_file(args.source, args.architecture)
        if args.config_file:
            _check(conversion, args.config_file)
        _save(conversion, args.target)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for warning in conversion.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(_report(conversion, args.target))
    return 0


def _check(conversion: Conversion, config_file: str) -> None:
    cfg, _ = load_config(config_file, ())
    ours = conversion.weights
    if not conversion.is_ours:
        ours = from_mmdetection(ours, conversion.architecture)
    check_fit(ours, instantiate(cfg.model))


def _save(conversion: Conversion, target: str) -> None:
    folder = os.path.dirname(os.path.abspath(target))
    if not os.path.isdir(folder):
        raise InputError(f"There is no folder {folder} to write {os.path.basename(target)} to.")
    with replacing(target) as temporary:
        torch.save(conversion.checkpoint(), temporary)


def _report(conversion: Conversion, target: str) -> str:
    names = {
        "atss": "ATSS or PAA",
        "paa": "PAA",
        "resnet": "ResNet",
        "co_deformable_detr": "Co-Deformable-DETR",
    }
    what = names.get(conversion.architecture, conversion.architecture)
    whose = "brloss_d2" if conversion.is_ours else "mmdetection"
    numbers = sum(weight.numel() for weight in conversion.weights.values())
    return (
        f"{what}: {len(conversion.weights)} tensors, {numbers:,} numbers, "
        f"under the names of {whose} in {target}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="checkpoint to read")
    parser.add_argument("target", help="checkpoint to write")
    parser.add_argument(
        "--architecture", choices=ARCHITECTURES, help="default: recognized by the weights"
    )
    parser.add_argument("--config-file", help="check the shapes against the model of this config")
    return parser


if __name__ == "__main__":
    sys.exit(main())
