"""The tables of an analyzed run: as text for a terminal, and as CSV."""

import csv
import io
import os
from collections.abc import Sequence

from tabulate import tabulate

from brloss_d2.evaluation import Analysis, Calibration
from brloss_d2.evaluation.analysis import KINDS
from brloss_d2.evaluation.counts import COLUMNS, Counts
from brloss_d2.evaluation.lrp import lrp_table
from brloss_d2.evaluation.run import ImagePair
from brloss_d2.utils.text import printable

_WIDTH = 80  # columns of a terminal
_FITTING = 20  # rows of a matrix that may fit
_MOST = 10  # rows of the list of confusions


def all_tables(
    analysis: Analysis,
    calibration: Calibration,
    counts: Counts,
    kept: str,
    worst: Sequence[ImagePair],
) -> str:
    """Return all that is told in a terminal.

    Args:
        analysis: analysis of all detections.
        calibration: suggested thresholds.
        counts: what was found from a threshold on.
        kept: which detections count: "from score 0.5 on ...".
        worst: images with the most errors among these, the worst one first.
    """
    return "\n\n".join(
        [
            metric_tables(analysis),
            count_table(counts, analysis.class_names, kept),
            *error_tables(analysis),
            *worst_table(worst),
            threshold_lines(calibration),
        ]
    )


def metric_tables(analysis: Analysis) -> str:
    """Return the metrics of all classes, and a row per class."""
    known = {key: None if value != value else value for key, value in analysis.metrics.items()}
    names = list(known)
    sizes = "\n\n".join(  # AP and oLRP, one below the other
        tabulate([{key: known[key] for key in row}], headers="keys", floatfmt=".2f", missingval="-")
        for row in (names[:6], names[6:])
    )
    columns = {"AP": analysis.class_ap, "F1": analysis.class_f1}
    classes = lrp_table(analysis.lrp, analysis.class_names, columns=columns)
    return f"{analysis.task}, percent:\n{sizes}\n\n{classes}"


def error_tables(analysis: Analysis) -> list[str]:
    """Return the kinds of errors and the confusion of classes; nothing without hotcoco."""
    errors = analysis.errors
    if errors is None:
        return []
    rows = [
        [kind, meaning, errors.counts[kind], errors.ap_loss[kind]]
        for kind, meaning in KINDS.items()
    ]
    kinds = tabulate(rows, headers=["error", "meaning", "count", "AP50 lost"], floatfmt=".2f")
    names = [printable(name, length=28) for name in (*analysis.class_names, "background")]
    title = f"from score {errors.score_threshold:.4f} on, IoU 0.5, percent of the row:"
    matrix = ""
    if len(names) <= _FITTING:
        matrix = tabulate(
            [[name[:12], *row] for name, row in zip(names, errors.shares.tolist(), strict=True)],
            headers=["true \\ found", *(name[:10] for name in names)],
            floatfmt=".1f",
        )
    if not matrix or max(map(len, matrix.split("\n"))) > _WIDTH:
        # Too wide: the pairs of classes with the most confusions; background is in the picture.
        title = title.replace("row", "true class")
        rows = [
            [names[i], names[j], errors.confusion[i, j], errors.shares[i, j]]
            for i, j in errors.most_confused(_MOST)
        ]
        matrix = tabulate(rows, headers=["true", "found", "objects", "percent"], floatfmt=".1f")
    return [f"Errors at IoU 0.5 (TIDE), all scores:\n{kinds}", f"Confusion, {title}\n{matrix}"]


def count_table(counts: Counts, class_names: Sequence[str], kept: str) -> str:
    """Return what was found of each class, the rarest one first, and of all of them.

    Args:
        counts: what was found.
        class_names: names of the classes, K of them.
        kept: which detections count.
    """
    rows = [
        *zip(class_names, counts.rows(), strict=True),
        ("all classes", counts.total().rows()[0]),
    ]
    cells = [
        [
            printable(rows[i][0], length=20),
            *(f"{value:.0f}" for value in rows[i][1][:4]),
            *("-" if value != value else f"{value:.2f}" for value in rows[i][1][4:]),
        ]
        for i in (*counts.by_rarity(), -1)
    ]
    align = ["left", *["right"] * len(COLUMNS)]
    headers = ["class", *COLUMNS]
    table = tabulate(cells, headers=headers, disable_numparse=True, colalign=align)
    return f"Classes, {kept}:\n{table}"


def worst_table(worst: Sequence[ImagePair]) -> list[str]:
    """Return the errors of the worst images; nothing if there are none."""
    if not worst:
        return []
    rows = [
        [printable(os.path.basename(pair.file_name), length=50), *pair.errors] for pair in worst
    ]
    table = tabulate(rows, headers=["image", "missed", "false"])
    return [f"Worst images, at this score and IoU; a missed or false object counts one:\n{table}"]


def class_csv(analysis: Analysis, counts: Counts, threshold: float) -> str:
    """Return counts and metrics of each class as CSV, one line each; undefined values are empty.

    Args:
        analysis: AP and oLRP of all scores, in percent.
        counts: what was found from the threshold on, at IoU 0.5; P, R and F1 in percent.
        threshold: score threshold of the counts, 0..1.
    """
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["class", *COLUMNS, "AP", "oLRP", "score_threshold", "iou", "task"])
    for name, row, ap, olrp in zip(
        analysis.class_names, counts.rows(), analysis.class_ap, analysis.lrp.olrp, strict=True
    ):
        shares = ["" if v != v else f"{v:.4f}" for v in (*row[4:], ap, 100 * olrp)]
        numbers = [f"{v:.0f}" for v in row[:4]]
        writer.writerow([name, *numbers, *shares, threshold, 0.5, analysis.task])
    return content.getvalue()


def threshold_lines(calibration: Calibration) -> str:
    """Return the suggested thresholds, and the errors of the calibration if there is one."""
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
    return advice
