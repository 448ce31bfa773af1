"""Analyze the detections of an evaluated run: tables, thresholds, errors, calibration, pictures.

    %(prog)s --output-dir output/demo
    %(prog)s --output-dir output/demo --calibration isotonic --per-class

Prints AP, oLRP, precision, recall, F1 and the kinds of errors, writes the suggested thresholds to
`<output-dir>/calibration.json`, tables and pictures to `<output-dir>/analysis`, and a page with all
of it to `<output-dir>/report.html`. See docs/evaluation.md.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from brloss_d2.cli.common import make_parser, positive_int, run_program, score
from brloss_d2.errors import InputError, NothingToAnalyzeError
from brloss_d2.utils.files import write_text
from brloss_d2.utils.text import printable

if TYPE_CHECKING:
    from brloss_d2.evaluation import Analysis, Calibration
    from brloss_d2.evaluation.run import EvaluatedRun

_SAMPLES = 4  # images on the page, besides the worst ones


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--output-dir", required=True, help="train.output_dir of the run")
    parser.add_argument("--task", choices=("bbox", "segm"), default="bbox", help="default: bbox")
    parser.add_argument(
        "--calibration", choices=("temperature", "isotonic"), help="map to fit and save as well"
    )
    parser.add_argument("--per-class", action="store_true", help="draw each class as well")
    parser.add_argument(
        "--max-dets",
        type=positive_int,
        default=100,
        help="number of detections that count per image and class (default: 100, as COCO)",
    )
    parser.add_argument(
        "--score-threshold",
        type=score,
        metavar="0.x",
        help="count and draw detections from this score on (default: the suggested threshold)",
    )
    parser.add_argument(
        "--worst-images",
        type=positive_int,
        default=12,
        metavar="N",
        help="draw the N images with the most errors (default: 12)",
    )
    return run_program(_analyze, parser.parse_args(argv))


def _analyze(args: argparse.Namespace) -> int:
    from brloss_d2.cli import analysis_pictures as pictures
    from brloss_d2.cli import analysis_tables as tables
    from brloss_d2.cli.report import Findings, write_report
    from brloss_d2.evaluation import analyze, save_calibration
    from brloss_d2.evaluation.counts import Counts
    from brloss_d2.evaluation.run import EvaluatedRun

    try:
        run = EvaluatedRun.load(args.output_dir)
        options = {"task": args.task, "max_dets_per_image": args.max_dets}
        analysis = analyze(run.json_file, run.results, run.category_names, **options)
        calibration = _calibrate(analysis, run, args.calibration)
    except NothingToAnalyzeError as error:
        print(_line("report", write_report(args.output_dir, None, str(error))))
        raise
    before = None if args.calibration else _of_other_images(args.output_dir, calibration)
    threshold, why = args.score_threshold, "--score-threshold"
    if threshold is None and before is not None:
        threshold, why = before.score_threshold, "of other images, in calibration.json"
    elif threshold is None:
        threshold, why = calibration.score_threshold, "lowest LRP, in calibration.json"
    kept = f"from score {threshold:.4f} on ({why}), at IoU 0.5"
    counts = Counts.of(analysis.matches, threshold)
    worst = run.worst_pairs(args.worst_images, threshold, task=args.task)
    text = tables.all_tables(analysis, calibration, counts, kept, worst)
    print(text, end="\n\n")
    folder = os.path.join(args.output_dir, "analysis")
    csv = tables.class_csv(analysis, counts, threshold)
    files = []
    if before is None:
        files.append(save_calibration(calibration, args.output_dir))
    else:
        others = printable(before.computed_on["annotations"])
        print(f"calibration.json stays that of {others}; remove it to choose anew.\n")
    for name, content in (("tables.txt", f"{text}\n"), ("classes.csv", csv)):
        files.append(os.path.join(folder, name))
        write_text(files[-1], content)
    files += pictures.draw_charts(analysis, calibration, folder, per_class=args.per_class)
    for file in files:
        print(_line(os.path.splitext(os.path.basename(file))[0], file))
    spread = run.pairs(_SAMPLES, threshold, task=args.task)
    drawn = {
        name: pictures.draw_images(pairs, run.class_names, folder, name)
        for name, pairs in (("predictions", spread), ("worst", worst))
    }
    for name, images in drawn.items():
        print(_line(name, pictures.files_of(images)))
    confusion = os.path.join(folder, pictures.CONFUSION) if analysis.errors else ""
    found = Findings(analysis, counts, kept, **drawn, confusion=confusion)
    print(_line("report", write_report(args.output_dir, found)))
    return 0


def _line(name: str, value: str) -> str:
    return f"{name + ':':<18}{value}"


def _of_other_images(output_dir: str, found: "Calibration") -> "Calibration | None":
    """Return the calibration of the run if it is of the same weights, but of other images.

    A threshold that was chosen on validation images is not chosen again on those to test on.
    """
    from brloss_d2.evaluation import load_calibration

    try:
        before = load_calibration(output_dir)
    except InputError:  # it is written again
        return None
    if before is None or not before.is_of(lambda: str(found.computed_on["weights"])):
        return None
    path = before.computed_on.get("annotations")
    same = not path or os.path.basename(path) == os.path.basename(found.computed_on["annotations"])
    return None if same else before


def _calibrate(analysis: "Analysis", run: "EvaluatedRun", kind: str | None) -> "Calibration":
    from brloss_d2.evaluation import fit_calibration, suggest_thresholds
    from brloss_d2.evaluation.calibration import held_out_errors

    matches, names = analysis.matches, analysis.class_names
    computed_on = {
        "annotations": os.path.abspath(run.json_file),
        "weights": run.weights,
        "task": analysis.task,
        "iou": 0.5,
        "images": analysis.num_images,
        "detections": len(matches.scores),
        "true_positives": int(matches.correct.sum()),
    }
    found = replace(suggest_thresholds(matches, names), computed_on=computed_on)
    if kind is None:
        return found
    computed_on["held_out"] = held_out_errors(matches, names, kind)
    return replace(found, calibration=fit_calibration(matches, names, kind))
