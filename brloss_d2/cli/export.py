r"""Write a detector as TorchScript or ONNX, and check that its detections stay the same.

    %(prog)s --config-file output/a/config.yaml --weights output/a/model_final.pth \
        --sample photo.jpg --format torchscript --output detector.ts

The sample is any image in which the detector finds something. docs/prediction.md describes the
interface of the file, and what cannot be exported.
"""

import argparse
from collections.abc import Sequence

from brloss_d2.cli.common import add_model_arguments, load_predictor, make_parser, run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = make_parser(__doc__)
    add_model_arguments(parser)
    parser.add_argument("--sample", required=True, help="image with objects")
    parser.add_argument("--format", choices=("torchscript", "onnx"), default="torchscript")
    parser.add_argument("--output", required=True, help="file to write")
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="0.x",
        help="becomes part of the file (default: as for brloss-predict)",
    )
    parser.add_argument(
        "--dynamic-batch",
        action="store_true",
        help="the file takes any number of images, all of the size of the sample",
    )
    return run_program(_export, parser.parse_args(argv))


def _export(args: argparse.Namespace) -> int:
    from brloss_d2.data import read_image
    from brloss_d2.prediction import export_onnx, export_torchscript

    sample = read_image(args.sample)
    predictor = load_predictor(args)
    export = export_onnx if args.format == "onnx" else export_torchscript
    names = export(predictor, sample, args.output, dynamic_batch=args.dynamic_batch)
    print(f"Wrote {args.output}. Outputs: {', '.join(names)}.")
    return 0
