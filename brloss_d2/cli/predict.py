r"""Detect objects in images and videos; write pictures and predictions in COCO format.

    %(prog)s --config-file output/a/config.yaml --weights output/a/model_final.pth \
        --input photo.jpg 'more/*.png' folder/ --output output/predictions

Writes pictures/*.png, predictions.json (COCO results) and images.json (images and categories that
the results refer to). Files that cannot be read are skipped and reported at the end; the exit
status is then 1.

A video, a stream (rtsp://...) or a camera (its number) becomes NAME.mp4 with the objects drawn, and
NAME.jsonl with a line per frame:

    %(prog)s --config-file output/a/config.yaml --weights output/a/model_final.pth \
        --input clip.mp4 --batch-size 4
"""

import argparse
import sys
from collections.abc import Sequence

from brloss_d2.cli.common import (
    add_model_arguments,
    load_predictor,
    make_parser,
    positive_int,
    run_program,
)
from brloss_d2.errors import InputError
from brloss_d2.utils.text import counted

_MAX_ERRORS = 20  # lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = make_parser(__doc__)
    add_model_arguments(parser)
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="files, folders, patterns; a video",
    )
    parser.add_argument(
        "--output", default="output/predictions", help="folder (default: output/predictions)"
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="0.x",
        help="drop detections below it (default: the one in calibration.json next to the weights, "
        "otherwise that of the model)",
    )
    parser.add_argument(
        "--batch-size", type=positive_int, default=1, help="images per batch (default: 1)"
    )
    parser.add_argument(
        "--num-workers",
        type=int,
        default=2,
        metavar="N",
        help="threads that read and resize images while the model looks at others (default: 2)",
    )
    parser.add_argument(
        "--tile",
        type=positive_int,
        metavar="PIXELS",
        help="look at large images in overlapping tiles of this side, too",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        metavar="0.x",
        help="part of a tile that the next one shares (default: 0.2)",
    )
    parser.add_argument(
        "--max-frames", type=positive_int, metavar="N", help="end a video after N frames"
    )
    parser.add_argument("--no-pictures", action="store_true", help="write the JSON files only")
    return run_program(_predict, parser.parse_args(argv))


def _predict(args: argparse.Namespace) -> int:
    from brloss_d2.prediction import OutputFolder, find_images
    from brloss_d2.prediction.video import is_video

    if any(map(is_video, args.input)):
        return _predict_video(args)
    files = find_images(args.input)
    predictor = load_predictor(args)
    folder = OutputFolder(args.output, predictor.categories, pictures=not args.no_pictures)
    errors: list[InputError] = []
    images = objects = 0
    try:
        for prediction, image in predictor.stream(
            files,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
            on_error=errors.append,
        ):
            folder.add(prediction, image)
            images, objects = images + 1, objects + len(prediction)
    except KeyboardInterrupt:
        folder.write()
        print(f"Interrupted after {counted(images, 'image')}: {args.output}", file=sys.stderr)
        raise
    folder.write()
    for error in errors[:_MAX_ERRORS]:
        print(f"error: {error}", file=sys.stderr)
    if len(errors) > _MAX_ERRORS:
        print(f"error: {len(errors) - _MAX_ERRORS} further files unreadable", file=sys.stderr)
    skipped = f", {len(errors)} unreadable" if errors else ""
    found = f"{counted(objects, 'object')} in {counted(len(files) - len(errors), 'image')}"
    print(f"{found}{skipped}: {args.output}")
    if predictor.score_threshold == 0:
        print(
            "note: without --score-threshold and without calibration.json next to the weights, "
            "everything that the model outputs is kept; brloss-analyze suggests a threshold",
            file=sys.stderr,
        )
    return 1 if errors else 0


def _predict_video(args: argparse.Namespace) -> int:
    from brloss_d2.prediction.video import predict_video

    if len(args.input) > 1:
        raise InputError(f"--input has {len(args.input)} paths: a video is read alone.")
    done = predict_video(
        load_predictor(args),
        args.input[0],
        args.output,
        batch_size=args.batch_size,
        max_frames=args.max_frames,
        pictures=not args.no_pictures,
    )
    print(
        f"{counted(done.objects, 'object')} in {counted(done.frames, 'frame')}, "
        f"{done.frames / done.seconds:.1f} frames per second: {', '.join(done.files)}"
    )
    if args.max_frames is None and done.frames < 0.95 * done.announced:
        print(
            f"note: the video announces {done.announced} frames; the others cannot be read",
            file=sys.stderr,
        )
    return 0
