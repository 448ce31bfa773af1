"""Detect objects in images: boxes and masks drawn, and written in COCO format.

    python demo/demo.py --config-file output/a/config.yaml --weights output/a/model_final.pth \\
        --input photo.jpg 'more/*.png' folder/ --output output/predictions

Writes pictures/*.png, predictions.json (COCO results) and images.json (the images and categories
that they refer to). A file that cannot be read is told and left out; the exit status is then 1.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

# Before torch starts its threads, as in train_net.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from brloss_d2.errors import InputError
from brloss_d2.prediction import OutputFolder, Predictor, find_images
from brloss_d2.utils.arguments import positive_int


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(argv)
    # Of detectron2's code; no user can mend it.
    warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release")
    try:
        return _detect(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _detect(args: argparse.Namespace) -> int:
    files = find_images(args.input)
    predictor = Predictor.load(
        args.config_file,
        args.weights,
        score_threshold=args.score_threshold,
        annotations=args.annotations,
        overrides=args.opts,
        device=args.device,
    )
    folder = OutputFolder(args.output, predictor.categories, pictures=not args.no_pictures)
    mistakes: list[InputError] = []

    def tell(error: InputError) -> None:
        print(f"error: {error}", file=sys.stderr)
        mistakes.append(error)

    found = predictor.stream(files, batch_size=args.batch_size, on_error=tell)
    objects = 0
    for prediction, image in found:
        folder.add(prediction, image)
        objects += len(prediction)
    folder.write()
    skipped = f", {len(mistakes)} unreadable" if mistakes else ""
    print(f"{objects} objects in {len(files) - len(mistakes)} images{skipped}: {args.output}")
    if predictor.score_threshold == 0:
        print(
            "note: without --score-threshold, and without calibration.json beside the weights, all "
            "that the model lets through is kept; tools/analyze_detections.py suggests a threshold",
            file=sys.stderr,
        )
    return 1 if mistakes else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="config, or config.yaml of a run")
    parser.add_argument("--weights", required=True, help="checkpoint, such as model_final.pth")
    parser.add_argument(
        "--input", required=True, nargs="+", metavar="PATH", help="files, folders or patterns"
    )
    parser.add_argument(
        "--output", default="output/predictions", help="folder (default: output/predictions)"
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="0.x",
        help="drop detections below it (default: that of calibration.json beside the weights, "
        "else that of the model)",
    )
    parser.add_argument("--batch-size", type=positive_int, default=1, help="images (default: 1)")
    parser.add_argument("--annotations", help="COCO file with the names of the classes")
    parser.add_argument("--no-pictures", action="store_true", help="write the JSON files alone")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="KEY=VALUE", help="changes of the config"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
