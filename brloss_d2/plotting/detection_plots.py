"""Pictures of an analyzed run: precision and recall, scores, classes, errors, calibration."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from brloss_d2.evaluation import Analysis, Calibration, ErrorKinds, Matches, mean_lrp_curve
from brloss_d2.evaluation.lrp import f1_curve
from brloss_d2.plotting.figures import PALETTE, new_figure, plain, save_figure, style_of, tidy

_IOUS = (0.5, 0.75)
_NAMED = 7  # number of classes up to which single curves have names
_COLUMNS, _ROWS = 5, 6  # panels per page
_WRITTEN = 25  # number of classes up to which numbers fit into the confusion matrix
_LABELED = 120  # number of classes up to which their names fit
_LONGEST = 24  # columns of a name
_POSITIVE, _NEGATIVE, _LRP, _F1 = PALETTE[0], PALETTE[1], PALETTE[6], PALETTE[2]


def plot_precision_recall(analysis: Analysis, path: str) -> None:
    """Draw precision against recall: the mean of the classes, and each class at IoU 0.5.

    Args:
        analysis: analysis with at least one object.
        path: file to write.
    """
    several = len(analysis.class_names) > 1
    figure = new_figure(10.5 if several else 5.5, 5.2)
    panels = figure.subplots(1, 1 + several, squeeze=False)[0]
    draw_mean_precision(panels[0], analysis)
    if several:
        draw_class_precision(panels[1], analysis)
    save_figure(figure, path)


def draw_mean_precision(axes: Axes, analysis: Analysis) -> None:
    """Draw precision against recall, the mean of the classes that have objects, as AP.

    Args:
        axes: axes to draw on.
        analysis: analysis with at least one object.
    """
    curves = np.nanmean(analysis.precisions, axis=2)
    for number, iou in enumerate(_IOUS):
        curve = curves[_row(analysis, iou)]
        label = f"IoU {iou:.2f} (AP {100 * curve.mean():.1f})"
        axes.plot(analysis.recalls, curve, label=label, **style_of(number))
    mean = curves.mean(axis=0)
    label = f"IoU 0.50 to 0.95 (AP {100 * mean.mean():.1f})"
    axes.plot(analysis.recalls, mean, label=label, color=PALETTE[6], linewidth=2)
    _finish(axes, "Mean of the classes" if len(analysis.class_names) > 1 else "")


def draw_class_precision(axes: Axes, analysis: Analysis) -> None:
    """Draw precision against recall of each class at IoU 0.5.

    Args:
        axes: axes to draw on.
        analysis: analysis with at least one object.
    """
    few = len(analysis.class_names) <= _NAMED
    curves = analysis.precisions[_row(analysis, 0.5)]
    for number, name in enumerate(analysis.class_names):
        curve = curves[:, number]
        if np.isnan(curve).any():
            continue
        style = style_of(number) if few else {"color": "gray", "alpha": 0.35, "linewidth": 0.8}
        text = f"{plain(name, length=_LONGEST)} (AP50 {100 * curve.mean():.1f})" if few else None
        axes.plot(analysis.recalls, curve, label=text, **style)
    if not few:
        mean = np.nanmean(curves, axis=1)
        axes.plot(analysis.recalls, mean, color=PALETTE[1], linewidth=2, label="mean")
    _finish(axes, "Each class, IoU 0.50")


def _finish(axes: Axes, title: str) -> None:
    """Finish a plot of precision against recall, with a legend that hides no curve."""
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    tidy(axes, xlabel="recall", ylabel="precision", title=title)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=9)


def plot_scores(analysis: Analysis, thresholds: Calibration, path: str) -> None:
    """Draw the scores of true and false positives above LRP and F1 at each threshold.

    Args:
        analysis: analysis with at least one detection.
        thresholds: thresholds to draw as lines.
        path: file to write.
    """
    figure = new_figure(7.5, 6.4)
    above, below = figure.subplots(2, 1, sharex=True)
    draw_score_histogram(above, analysis.matches)
    above.set_xlabel("")
    draw_thresholds(below, analysis.matches)
    for axes in (above, below):
        axes.legend(fontsize=9)
        axes.axvline(thresholds.score_threshold, color=_LRP, linestyle="--", linewidth=1)
        axes.axvline(thresholds.best_f1_threshold, color=_F1, linestyle=":", linewidth=1.4)
    figure.suptitle(
        f"Best threshold: {thresholds.score_threshold:.3g} by LRP (dashed), "
        f"{thresholds.best_f1_threshold:.3g} by F1 (dotted)",
        fontsize=11,
    )
    save_figure(figure, path)


def draw_thresholds(axes: Axes, matches: Matches) -> None:
    """Draw LRP, averaged over classes, and F1 against the score threshold.

    Args:
        axes: axes to draw on.
        matches: matches with at least one detection.
    """
    lowest_scores, lrp = mean_lrp_curve(matches)
    label = f"LRP, mean of the classes (lowest {100 * lrp.min():.1f})"
    axes.plot(lowest_scores, 100 * lrp, color=_LRP, label=label)
    lowest_scores, f1 = f1_curve(matches)
    label = f"F1, all classes (highest {100 * f1.max():.1f})"
    axes.plot(lowest_scores, 100 * f1, color=_F1, label=label)
    axes.set_ylim(0, 102)
    tidy(axes, xlabel="score threshold", ylabel="percent")


def draw_score_histogram(axes: Axes, matches: Matches, *, bins: int = 50) -> None:
    """Draw the number of true and false positives by score, on a logarithmic axis.

    Args:
        axes: axes to draw on.
        matches: matches with at least one detection.
        bins: number of bins from 0 to the highest score, since the scores of ranking losses may
            lie close together.
    """
    edges = np.linspace(0, max(matches.scores.max(), 1e-6), bins + 1)
    for name, keep, color in (
        ("false positives", ~matches.correct, _NEGATIVE),
        ("true positives", matches.correct, _POSITIVE),
    ):
        counts, _ = np.histogram(matches.scores[keep], edges)
        label = f"{name} ({keep.sum():,})"
        axes.stairs(counts, edges, fill=True, color=color, alpha=0.35, label=label)
        axes.stairs(counts, edges, color=color, linewidth=1.2)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.set_xlim(0, edges[-1])
    tidy(axes, xlabel="score", ylabel="detections")


def plot_classes(analysis: Analysis, path: str) -> None:
    """Draw AP and oLRP per class side by side, the best AP on top.

    Args:
        analysis: analysis of any number of classes.
        path: file to write.
    """
    ap, olrp = analysis.class_ap, analysis.lrp.olrp * 100
    order = np.argsort(np.where(np.isnan(ap), -1, ap), kind="stable")
    names = [plain(analysis.class_names[label], length=_LONGEST) for label in order]
    figure = new_figure(8.5, 1.2 + 0.24 * max(len(names), 4))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, values, color, title in (
        (left, ap[order], PALETTE[0], "AP (higher is better)"),
        (right, olrp[order], PALETTE[1], "oLRP (lower is better)"),
    ):
        texts = ["no objects" if np.isnan(value) else f"{value:.1f}" for value in values]
        _draw_bars(axes, names, np.nan_to_num(values), texts, color=color, title=title)
        axes.set_xlim(0, 112)
        axes.set_xticks(range(0, 101, 20))
        axes.set_ylim(-0.6, len(names) - 0.4)
    save_figure(figure, path)


def plot_errors(errors: ErrorKinds, path: str) -> None:
    """Draw AP50 lost to each kind of error, and the number of errors.

    Args:
        errors: errors by kind.
        path: file to write.
    """
    kinds = list(errors.counts)[::-1]
    figure = new_figure(8.5, 2.8)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, values, color, title, form in (
        (left, errors.ap_loss, PALETTE[1], "AP50 lost", ".1f"),
        (right, errors.counts, PALETTE[0], "errors, all scores", ","),
    ):
        lengths = [values[kind] for kind in kinds]
        texts = [format(value, form) for value in lengths]
        _draw_bars(axes, kinds, lengths, texts, color=color, title=title)
        axes.set_xlim(0, 1.15 * max(*lengths, 1e-6))
    save_figure(figure, path)


def _draw_bars(
    axes: Axes,
    names: Sequence[str],
    lengths: Sequence[float] | np.ndarray,
    texts: Sequence[str],
    *,
    color: str,
    title: str,
) -> None:
    bars = axes.barh(names, lengths, color=color, alpha=0.8, height=0.7)
    axes.bar_label(bars, texts, padding=3, fontsize=8)
    tidy(axes, title=title)
    axes.grid(visible=False, axis="y")


def plot_confusion(errors: ErrorKinds, class_names: Sequence[str], path: str) -> None:
    """Draw the confusion matrix, each row divided by its sum, with background.

    Args:
        errors: errors by kind, with the confusion matrix.
        class_names: names of the classes, K of them.
        path: file to write.
    """
    confusion, shares = errors.confusion, errors.shares
    names = [plain(name, length=_LONGEST) for name in (*class_names, "background")]
    few = len(names) <= _WRITTEN
    size = 2.6 + max(0.42 * len(names), 2) if few else 3 + 0.16 * min(len(names), _LABELED)
    figure = new_figure(size + 0.8, size)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    if len(names) <= _LABELED:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8 if few else 6)
        axes.set_yticks(range(len(names)), names, fontsize=8 if few else 6)
    for row, column in zip(*np.nonzero(confusion), strict=True) if few else ():
        share = shares[row, column]
        color = "white" if share > 60 else "black"
        axes.text(column, row, f"{share:.0f}", color=color, ha="center", va="center", fontsize=8)
    axes.set(xlabel="found", ylabel="true class")
    axes.set_title(f"Percent of each row, from score {errors.score_threshold:.3g} on", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.7)
    save_figure(figure, path)


def plot_each_class(analysis: Analysis, pattern: str) -> list[str]:
    """Draw precision against recall in one panel per class, and return the files.

    Args:
        analysis: analysis of any number of classes.
        pattern: path with a `{}` for the number of the page.
    """
    labels = np.flatnonzero(~np.isnan(analysis.class_ap))
    paths = []
    for page, start in enumerate(range(0, len(labels), _COLUMNS * _ROWS), 1):
        own = labels[start : start + _COLUMNS * _ROWS]
        rows, columns = -(-len(own) // _COLUMNS), min(_COLUMNS, len(own))
        figure = new_figure(2.4 * columns, 2.4 * rows + 0.5)
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in panels.flat[len(own) :]:
            axes.set_axis_off()
        for axes, label in zip(panels.flat, own, strict=False):
            for number, iou in enumerate(_IOUS):
                curve = analysis.precisions[_row(analysis, iou), :, label]
                axes.plot(analysis.recalls, curve, label=f"IoU {iou:.2f}", **style_of(number))
            axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
            tidy(axes)
            olrp = 100 * analysis.lrp.olrp[label]
            numbers = f"AP {analysis.class_ap[label]:.1f}, oLRP {olrp:.1f}"
            axes.set_title(
                f"{plain(analysis.class_names[label], length=_LONGEST)}\n{numbers}", fontsize=8
            )
        handles = panels.flat[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=2)
        figure.supxlabel("recall", fontsize=10)
        figure.supylabel("precision", fontsize=10)
        paths.append(pattern.format(page))
        save_figure(figure, paths[-1])
    return paths


def plot_reliability(
    probabilities: Mapping[str, np.ndarray], correct: np.ndarray, path: str, *, bins: int = 10
) -> None:
    """Draw precision against the score; a calibrated detector lies on the diagonal.

    Args:
        probabilities: name -> scores or probabilities, (N,), 0..1; one line each.
        correct: whether each detection is a true positive, (N,).
        path: file to write.
        bins: number of bins from 0 to the highest score of a line; empty ones are left out. The
            area of a point grows with the number of detections.
    """
    figure = new_figure(5.4, 5.5)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle="--", label="calibrated")
    for number, (name, values) in enumerate(probabilities.items()):
        bin_ = np.minimum((values / max(values.max(), 1e-6) * bins).astype(int), bins - 1)
        counts = np.bincount(bin_, minlength=bins)
        used = counts > 0
        x, y = (
            np.bincount(bin_, v, minlength=bins)[used] / counts[used] for v in (values, correct)
        )
        color = PALETTE[number]
        axes.plot(x, y, color=color, label=name, marker=".")
        area = 15 + 300 * counts[used] / len(values)
        axes.scatter(x, y, area, color=color, alpha=0.35, linewidth=0)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    tidy(axes, xlabel="score", ylabel="share of true positives (IoU 0.5)")
    figure.legend(fontsize=9, loc="outside lower center", ncols=3)
    save_figure(figure, path)


def _row(analysis: Analysis, iou: float) -> int:
    """Return the index of an IoU threshold in `analysis.precisions`."""
    return int(np.argmin(np.abs(analysis.iou_thresholds - iou)))
