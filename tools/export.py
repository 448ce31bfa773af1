"""Write a detector as TorchScript or ONNX, and check that it still detects the same.

    python tools/export.py --config-file output/a/config.yaml --weights output/a/model_final.pth \\
        --sample photo.jpg --format torchscript --output detector.ts

The sample is any image in which the detector finds something. See docs/prediction.md for the
interface of the file, and for what cannot be exported.
"""

import argparse
import sys
from collections.abc import Sequence

from brloss_d2.errors import InputError
from brloss_d2.prediction import Predictor, export_onnx, export_torchscript, read_rgb

FORMATS = {"torchscript": export_torchscript, "onnx": export_onnx}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(argv)
    try:
        sample = read_rgb(args.sample)
        predictor = Predictor.load(
            args.config_file,
            args.weights,
            score_threshold=args.score_threshold,
            overrides=args.opts,
            device=args.device,
        )
        names = FORMATS[args.format](predictor, sample, args.output)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Wrote {args.output}. Outputs: {', '.join(names)}.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="config, or config.yaml of a run")
    parser.add_argument("--weights", required=True, help="checkpoint, such as model_final.pth")
    parser.add_argument("--sample", required=True, help="an image with objects")
    parser.add_argument("--format", choices=FORMATS, default="torchscript")
    parser.add_argument("--output", required=True, help="file to write")
    parser.add_argument(
        "--score-threshold", type=float, metavar="0.x", help="becomes part of the file"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="KEY=VALUE", help="changes of the config"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
