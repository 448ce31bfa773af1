"""Analyze the detections of an evaluated run: tables, thresholds, errors, calibration, pictures.

    %(prog)s --output-dir output/demo
    %(prog)s --output-dir output/demo --calibration isotonic --per-class

Prints AP, oLRP, F1 and the kinds of errors, writes the suggested thresholds to
`<output-dir>/calibration.json` and tables and pictures to `<output-dir>/analysis`. See
docs/evaluation.md.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from brloss_d2.cli.common import make_parser, positive_int, run_program
from brloss_d2.utils.text import printable

if TYPE_CHECKING:
    from brloss_d2.evaluation import Analysis, Calibration
    from brloss_d2.evaluation.run import EvaluatedRun

_WIDTH = 80  # columns of a terminal
_MOST = 10  # rows of the list of confusions


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
    return run_program(_analyze, parser.parse_args(argv))


def _analyze(args: argparse.Namespace) -> int:
    from brloss_d2.evaluation import analyze, save_calibration
    from brloss_d2.evaluation.run import EvaluatedRun

    run = EvaluatedRun.load(args.output_dir)
    analysis = analyze(
        run.json_file,
        run.results,
        run.category_names,
        task=args.task,
        max_dets_per_image=args.max_dets,
    )
    tables = "\n\n".join([metric_tables(analysis), *error_tables(analysis)])
    print(tables, end="\n\n")
    calibration = _calibrate(analysis, run, args.calibration)
    advice = (
        f"Suggested score threshold: {calibration.score_threshold:.4f} (lowest LRP); best F1 at "
        f"{calibration.best_f1_threshold:.4f}"
    )
    if calibration.calibration:
        errors = calibration.computed_on["held_out"]
        for prefix, which in (("", "all detections"), ("kept_", "from the threshold on")):
            before, after = (errors[f"{prefix}ece_{when}"] for when in ("before", "after"))
            advice += (
                f"\nExpected calibration error, held out, {which}: {before:.4f} -> {after:.4f}"
            )
    print(advice, end="\n\n")
    folder = os.path.join(args.output_dir, "analysis")
    os.makedirs(folder, exist_ok=True)
    paths = [save_calibration(calibration, args.output_dir), os.path.join(folder, "tables.txt")]
    with open(paths[-1], "w", encoding="utf-8") as file:
        file.write(f"{tables}\n\n{advice}\n")
    paths += _draw(analysis, calibration, folder, per_class=args.per_class)
    for path in paths:
        print(f"{os.path.splitext(os.path.basename(path))[0] + ':':<18}{path}")
    return 0


def metric_tables(analysis: "Analysis") -> str:
    """Return the metrics of all classes, and a row per class."""
    from tabulate import tabulate

    from brloss_d2.evaluation.lrp import lrp_table

    known = {key: None if value != value else value for key, value in analysis.metrics.items()}
    names = list(known)
    sizes = "\n\n".join(  # AP and oLRP, one below the other
        tabulate([{key: known[key] for key in row}], headers="keys", floatfmt=".2f", missingval="-")
        for row in (names[:6], names[6:])
    )
    columns = {"AP": analysis.class_ap, "F1": analysis.class_f1}
    classes = lrp_table(analysis.lrp, analysis.class_names, columns=columns)
    return f"{analysis.task}, percent:\n{sizes}\n\n{classes}"


def error_tables(analysis: "Analysis") -> list[str]:
    """Return the kinds of errors and the confusion of classes; nothing without hotcoco."""
    from tabulate import tabulate

    from brloss_d2.evaluation.analysis import KINDS

    errors = analysis.errors
    if errors is None:
        return []
    rows = [
        [kind, meaning, errors.counts[kind], errors.ap_loss[kind]]
        for kind, meaning in KINDS.items()
    ]
    kinds = tabulate(rows, headers=["error", "meaning", "count", "AP50 lost"], floatfmt=".2f")
    names = [printable(name, length=28) for name in (*analysis.class_names, "background")]
    confusion, shares = errors.confusion, errors.shares
    matrix = tabulate(
        [[name[:12], *row] for name, row in zip(names, shares.tolist(), strict=True)],
        headers=["true \\ found", *(name[:10] for name in names)],
        floatfmt=".1f",
    )
    title = f"from score {errors.score_threshold:.4f} on, IoU 0.5, percent of the row:"
    if max(map(len, matrix.split("\n"))) > _WIDTH:
        # Too wide: the pairs of classes with the most confusions; background is in the picture.
        title = title.replace("row", "true class")
        classes = range(len(names) - 1)
        pairs = [(i, j) for i in classes for j in classes if i != j and confusion[i, j]]
        pairs.sort(key=lambda pair: -confusion[pair])
        rows = [[names[i], names[j], confusion[i, j], shares[i, j]] for i, j in pairs[:_MOST]]
        matrix = tabulate(rows, headers=["true", "found", "objects", "percent"], floatfmt=".1f")
    return [f"Errors at IoU 0.5 (TIDE), all scores:\n{kinds}", f"Confusion, {title}\n{matrix}"]


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


def _draw(
    analysis: "Analysis", calibration: "Calibration", folder: str, *, per_class: bool
) -> list[str]:
    """Draw all pictures and return their paths."""
    from brloss_d2.evaluation.calibration import held_out
    from brloss_d2.plotting import detection_plots as plots

    path = partial(os.path.join, folder)
    paths = [path("precision_recall.png"), path("scores.png")]
    plots.plot_precision_recall(analysis, paths[0])
    plots.plot_scores(analysis, calibration, paths[1])
    if analysis.errors is not None:
        paths += [path("errors.png"), path("confusion_matrix.png")]
        plots.plot_errors(analysis.errors, paths[-2])
        plots.plot_confusion(analysis.errors, analysis.class_names, paths[-1])
    if calibration.calibration:
        kind, matches = calibration.calibration["kind"], analysis.matches
        after = held_out(matches, analysis.class_names, kind)
        scores = {"as trained": matches.scores, f"{kind} (held out)": after}
        paths.append(path("reliability.png"))
        plots.plot_reliability(scores, matches.correct, paths[-1])
    if per_class:
        paths.append(path("classes.png"))
        plots.plot_classes(analysis, paths[-1])
        paths += plots.plot_each_class(analysis, path("classes_{}.png"))
    return paths
