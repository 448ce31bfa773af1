"""Analyze the detections of an evaluated run: tables, thresholds, calibration, pictures.

    python tools/analyze_detections.py --output-dir output/demo
    python tools/analyze_detections.py --output-dir output/demo --calibration isotonic --per-class

Prints AP and oLRP, writes the suggested thresholds to `<output-dir>/calibration.json` and tables
and pictures to `<output-dir>/analysis`. See docs/evaluation.md.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from tabulate import tabulate

from brloss_d2.errors import InputError
from brloss_d2.evaluation import (
    Analysis,
    Calibration,
    analyze,
    fit_calibration,
    save_calibration,
    suggest_thresholds,
)
from brloss_d2.evaluation.analysis import TASKS
from brloss_d2.evaluation.calibration import KINDS, held_out, held_out_errors
from brloss_d2.evaluation.lrp_metrics import lrp_table
from brloss_d2.plotting import EvaluatedRun
from brloss_d2.plotting.detection_plots import (
    plot_classes,
    plot_each_class,
    plot_precision_recall,
    plot_reliability,
    plot_scores,
)
from brloss_d2.utils.arguments import positive_int


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(argv)
    try:
        paths = _analyze(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in paths:
        print(f"{os.path.splitext(os.path.basename(path))[0] + ':':<18}{path}")
    return 0


def _analyze(args: argparse.Namespace) -> list[str]:
    run = EvaluatedRun.load(args.output_dir)
    analysis = analyze(
        run.json_file,
        run.results,
        run.category_names,
        task=args.task,
        max_dets_per_image=args.max_dets,
    )
    tables = _tables(analysis)
    print(tables, end="\n\n")
    calibration = _calibration(analysis, run.json_file, args.calibration)
    print(_advice(calibration), end="\n\n")
    folder = os.path.join(args.output_dir, "analysis")
    return [
        save_calibration(calibration, args.output_dir),
        *_write(analysis, calibration, tables, folder, per_class=args.per_class),
    ]


def _tables(analysis: Analysis) -> str:
    known = {key: None if value != value else value for key, value in analysis.metrics.items()}
    sizes = tabulate([known], headers="keys", floatfmt=".2f", missingval="-")
    classes = lrp_table(analysis.lrp, analysis.class_names, ap=analysis.class_ap)
    return f"{analysis.task}, percent:\n{sizes}\n\n{classes}"


def _calibration(analysis: Analysis, json_file: str, kind: str | None) -> Calibration:
    matches, names = analysis.matches, analysis.class_names
    computed_on = {
        "annotations": os.path.abspath(json_file),
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


def _advice(calibration: Calibration) -> str:
    lines = [
        f"Suggested score threshold: {calibration.score_threshold:.4f} (lowest LRP); best F1 at "
        f"{calibration.best_f1_threshold:.4f}"
    ]
    if calibration.calibration:
        errors = calibration.computed_on["held_out"]
        for prefix, which in (("", "all detections"), ("kept_", "from the threshold on")):
            before, after = (errors[f"{prefix}ece_{when}"] for when in ("before", "after"))
            lines.append(
                f"Expected calibration error, held out, {which}: {before:.4f} -> {after:.4f}"
            )
    return "\n".join(lines)


def _write(
    analysis: Analysis, calibration: Calibration, tables: str, folder: str, *, per_class: bool
) -> list[str]:
    def path(name: str) -> str:
        return os.path.join(folder, name)

    os.makedirs(folder, exist_ok=True)
    paths = [path(name) for name in ("tables.txt", "precision_recall.png", "scores.png")]
    with open(paths[0], "w", encoding="utf-8") as file:
        file.write(f"{tables}\n\n{_advice(calibration)}\n")
    plot_precision_recall(analysis, paths[1])
    plot_scores(analysis, calibration, paths[2])
    if calibration.calibration:
        paths.append(path("reliability.png"))
        _plot_reliability(analysis, calibration.calibration["kind"], paths[-1])
    if per_class:
        paths.append(path("classes.png"))
        plot_classes(analysis, paths[-1])
        paths += plot_each_class(analysis, path("classes_{}.png"))
    return paths


def _plot_reliability(analysis: Analysis, kind: str, path: str) -> None:
    matches = analysis.matches
    after = held_out(matches, analysis.class_names, kind)
    label = f"{kind} (held out)"
    plot_reliability({"as trained": matches.scores, label: after}, matches.correct, path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output-dir", required=True, help="train.output_dir of the run")
    parser.add_argument("--task", choices=TASKS, default="bbox", help="default: bbox")
    parser.add_argument("--calibration", choices=KINDS, help="fit it and save it too")
    parser.add_argument("--per-class", action="store_true", help="pictures of each class")
    parser.add_argument(
        "--max-dets",
        type=positive_int,
        default=100,
        help="detections that count in an image and class (default: 100, as COCO)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
