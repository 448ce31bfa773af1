"""Draw predictions next to ground truth for an evaluated run of train_net.py.

    python tools/draw_predictions.py --output-dir output/demo

Writes one picture, in which missed objects and false detections have a dashed outline and a red
cross, and prints the paths of the picture, the checkpoint and the log.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from brloss_d2.cli.common import positive_int, run_program
from brloss_d2.evaluation import load_calibration
from brloss_d2.evaluation.run import EvaluatedRun, best_threshold
from brloss_d2.plotting import draw_comparison


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    The threshold `auto` is the one in the `calibration.json` of these weights, otherwise the one
    that would be written there, with the lowest LRP at IoU 0.5 over the dataset: a ranking loss may
    shift all scores, so that no fixed threshold suits every run.
    """
    return run_program(_draw_and_tell, _parser().parse_args(argv))


def _draw_and_tell(args: argparse.Namespace) -> int:
    picture = args.output or os.path.join(args.output_dir, "predictions.png")
    _draw(args.output_dir, picture, args.images, args.score_threshold)
    for what, path in (
        ("checkpoint", os.path.join(args.output_dir, "model_final.pth")),
        ("log", os.path.join(args.output_dir, "log.txt")),
        ("picture", picture),
    ):
        print(f"{what + ':':<12}{path}{'' if os.path.exists(path) else ' (missing)'}")
    return 0


def _draw(output_dir: str, picture: str, images: int, threshold: float | None) -> None:
    run = EvaluatedRun.load(output_dir)
    reason = ""
    if threshold is None:
        calibration = load_calibration(output_dir)
        if calibration and calibration.is_of(lambda: run.weights):
            threshold, reason = calibration.score_threshold, ", of calibration.json"
        else:
            threshold, reason = best_threshold(run), ", the lowest LRP at IoU 0.5"
    title = f"Score threshold of the predictions: {threshold:.2f}{reason}"
    draw_comparison(run.pairs(images, threshold), run.class_names, picture, title=title)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output-dir", required=True, help="train.output_dir of the run")
    parser.add_argument(
        "--images", type=positive_int, default=6, help="number of images (default: 6)"
    )
    parser.add_argument(
        "--score-threshold",
        type=_threshold,
        default=None,
        metavar="auto|0.x",
        help="draw predictions with at least this score (default: auto)",
    )
    parser.add_argument("--output", help="picture (default: predictions.png in the output folder)")
    return parser


def _threshold(text: str) -> float | None:
    return None if text == "auto" else float(text)


if __name__ == "__main__":
    sys.exit(main())
