"""Pictures of an analyzed run: precision and recall, scores, classes, calibration."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from brloss_d2.evaluation import Analysis, Calibration, ErrorKinds, Matches, mean_lrp_curve
from brloss_d2.plotting.figures import PALETTE, save_figure, style_of, tidy

_DPI = 110
_IOUS = (0.5, 0.75)
_NAMED = 7  # classes from which on single curves would be a tangle
_COLUMNS, _ROWS = 5, 6  # panels per page
_WRITTEN = 25  # classes up to which numbers fit into the confusion matrix
_LABELED = 120  # classes up to which their names fit
_POSITIVE, _NEGATIVE, _LRP, _F1 = PALETTE[0], PALETTE[1], PALETTE[6], PALETTE[2]


def plot_precision_recall(analysis: Analysis, path: str) -> None:
    """Precision against recall: averaged over the classes, and at IoU 0.5 class by class.

    Args:
        analysis: with at least one object.
        path: the file to write.
    """
    count = len(analysis.class_names)
    figure = _figure(10.5 if count > 1 else 5.5, 5.2)
    panels = figure.subplots(1, 2 if count > 1 else 1, squeeze=False)[0]
    _draw_mean_curves(panels[0], analysis)
    if count > 1:
        _draw_class_curves(panels[1], analysis)
    save_figure(figure, path)


def _draw_mean_curves(axes: Axes, analysis: Analysis) -> None:
    curves = np.nanmean(analysis.precisions, axis=2)  # of classes with objects, as AP
    for number, iou in enumerate(_IOUS):
        curve = curves[np.flatnonzero(np.isclose(analysis.iou_thresholds, iou))[0]]
        label = f"IoU {iou:.2f} (AP {100 * curve.mean():.1f})"
        axes.plot(analysis.recalls, curve, label=label, **style_of(number))
    mean = curves.mean(axis=0)
    label = f"IoU 0.50 to 0.95 (AP {100 * mean.mean():.1f})"
    axes.plot(analysis.recalls, mean, label=label, color=PALETTE[6], linewidth=2)
    _frame_curves(axes, "Mean of the classes" if len(analysis.class_names) > 1 else "")


def _draw_class_curves(axes: Axes, analysis: Analysis) -> None:
    at = np.flatnonzero(np.isclose(analysis.iou_thresholds, 0.5))[0]
    few = len(analysis.class_names) <= _NAMED
    for label, name in enumerate(analysis.class_names):
        curve = analysis.precisions[at, :, label]
        if np.isnan(curve).any():
            continue
        style = style_of(label) if few else {"color": "gray", "alpha": 0.35, "linewidth": 0.8}
        text = plain(f"{name} (AP50 {100 * curve.mean():.1f})") if few else None
        axes.plot(analysis.recalls, curve, label=text, **style)
    if not few:
        mean = np.nanmean(analysis.precisions[at], axis=1)
        axes.plot(analysis.recalls, mean, color=PALETTE[1], linewidth=2, label="mean")
    _frame_curves(axes, "Each class, IoU 0.50")


def _frame_curves(axes: Axes, title: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    tidy(axes, xlabel="recall", ylabel="precision", title=title)
    _legend_below(axes)


def _legend_below(axes: Axes) -> None:
    """Where no curve can run under it."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=9)


def plot_scores(analysis: Analysis, thresholds: Calibration, path: str) -> None:
    """Scores of true and false positives, and LRP and F1 at each threshold, on one axis.

    Args:
        analysis: with at least one detection.
        thresholds: drawn as lines.
        path: the file to write.
    """
    figure = _figure(7.5, 6.4)
    above, below = figure.subplots(2, 1, sharex=True)
    draw_score_histogram(above, analysis.matches)
    tidy(above, ylabel="detections")
    above.legend(fontsize=9)
    _draw_threshold_curves(below, analysis)
    for axes in (above, below):
        axes.axvline(thresholds.score_threshold, color=_LRP, linestyle="--", linewidth=1)
        axes.axvline(thresholds.best_f1_threshold, color=_F1, linestyle=":", linewidth=1.4)
    figure.suptitle(
        f"Best threshold: {thresholds.score_threshold:.3g} by LRP (dashed), "
        f"{thresholds.best_f1_threshold:.3g} by F1 (dotted)",
        fontsize=11,
    )
    save_figure(figure, path)


def draw_score_histogram(axes: Axes, matches: Matches, *, bins: int = 50) -> None:
    """Draw how many true and false positives have which score, on a logarithmic axis.

    Args:
        axes: to draw on.
        matches: with at least one detection.
        bins: from 0 to the highest score: the scores of ranking losses may lie close together.
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


def _draw_threshold_curves(axes: Axes, analysis: Analysis) -> None:
    matches = analysis.matches
    thresholds, lrp = mean_lrp_curve(matches)
    order = np.argsort(-matches.scores, kind="stable")
    found = matches.correct[order].cumsum()
    f1 = 2 * found / (np.arange(1, len(found) + 1) + matches.num_objects.sum())
    label = f"LRP, mean of the classes (lowest {100 * lrp.min():.1f})"
    axes.plot(thresholds, 100 * lrp, color=_LRP, label=label)
    label = f"F1, all classes (highest {100 * f1.max():.1f})"
    axes.plot(matches.scores[order], 100 * f1, color=_F1, label=label)
    axes.set_ylim(0, 102)
    tidy(axes, xlabel="score threshold", ylabel="percent")
    axes.legend(fontsize=9)


def plot_classes(analysis: Analysis, path: str) -> None:
    """AP and oLRP of each class side by side, the best AP on top.

    Args:
        analysis: of any number of classes.
        path: the file to write.
    """
    ap, olrp = analysis.class_ap, analysis.lrp.olrp * 100
    order = np.argsort(np.where(np.isnan(ap), -1, ap), kind="stable")
    names = [plain(analysis.class_names[label]) for label in order]
    figure = _figure(8.5, 1.2 + 0.24 * max(len(names), 4))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, values, color, title in (
        (left, ap, PALETTE[0], "AP (higher is better)"),
        (right, olrp, PALETTE[1], "oLRP (lower is better)"),
    ):
        values = values[order]
        axes.barh(names, np.nan_to_num(values), color=color, alpha=0.8, height=0.7)
        for row, value in enumerate(values):
            text = "no objects" if np.isnan(value) else f"{value:.1f}"
            axes.text(np.nan_to_num(value) + 1, row, text, va="center", fontsize=8)
        axes.set_xlim(0, 112)
        axes.set_xticks(range(0, 101, 20))
        axes.set_ylim(-0.6, len(names) - 0.4)
        tidy(axes, title=title)
        axes.grid(visible=False, axis="y")
    save_figure(figure, path)


def plot_each_class(analysis: Analysis, pattern: str) -> list[str]:
    """Draw precision and recall of each class in a panel of its own; return the files.

    Args:
        analysis: of any number of classes.
        pattern: a path with a `{}` for the number of the page.
    """
    labels = np.flatnonzero(~np.isnan(analysis.class_ap))
    paths = []
    for page, start in enumerate(range(0, len(labels), _COLUMNS * _ROWS), 1):
        own = labels[start : start + _COLUMNS * _ROWS]
        rows = -(-len(own) // _COLUMNS)
        figure = _figure(2.4 * min(_COLUMNS, len(own)), 2.4 * rows + 0.5)
        panels = figure.subplots(
            rows, min(_COLUMNS, len(own)), sharex=True, sharey=True, squeeze=False
        )
        for axes in panels.flat[len(own) :]:
            axes.set_axis_off()
        for axes, label in zip(panels.flat, own, strict=False):
            _draw_class(axes, analysis, label)
        figure.legend(
            *panels.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=2
        )
        figure.supxlabel("recall", fontsize=10)
        figure.supylabel("precision", fontsize=10)
        paths.append(pattern.format(page))
        save_figure(figure, paths[-1])
    return paths


def _draw_class(axes: Axes, analysis: Analysis, label: int) -> None:
    for number, iou in enumerate(_IOUS):
        at = np.flatnonzero(np.isclose(analysis.iou_thresholds, iou))[0]
        curve = analysis.precisions[at, :, label]
        axes.plot(analysis.recalls, curve, label=f"IoU {iou:.2f}", **style_of(number))
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    tidy(axes)
    numbers = f"AP {analysis.class_ap[label]:.1f}, oLRP {100 * analysis.lrp.olrp[label]:.1f}"
    axes.set_title(f"{plain(analysis.class_names[label])}\n{numbers}", fontsize=8)


def plot_errors(errors: ErrorKinds, path: str) -> None:
    """Draw AP50 lost to each kind of error, and how many errors there are.

    Args:
        errors: errors by kind.
        path: file to write.
    """
    kinds = list(errors.counts)[::-1]
    figure = _figure(8.5, 2.8)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, values, color, title, form in (
        (left, errors.ap_loss, PALETTE[1], "AP50 lost", "{:.1f}"),
        (right, errors.counts, PALETTE[0], "errors, all scores", "{:,}"),
    ):
        lengths = [values[kind] for kind in kinds]
        bars = axes.barh(kinds, lengths, color=color, alpha=0.8, height=0.7)
        axes.bar_label(bars, [form.format(v) for v in lengths], padding=3, fontsize=8)
        axes.set_xlim(0, 1.15 * max(*lengths, 1e-6))
        tidy(axes, title=title)
        axes.grid(visible=False, axis="y")
    save_figure(figure, path)


def plot_confusion(errors: ErrorKinds, class_names: Sequence[str], path: str) -> None:
    """Draw the confusion matrix, each row divided by its sum, with background.

    Args:
        errors: errors by kind, with the confusion matrix.
        class_names: names of the classes, K of them.
        path: file to write.
    """
    confusion = errors.confusion
    shares = confusion / confusion.sum(axis=1, keepdims=True).clip(min=1)
    names = [plain(name) for name in (*class_names, "background")]
    few = len(names) <= _WRITTEN
    size = 2.6 + max(0.42 * len(names), 2) if few else 3 + 0.16 * min(len(names), _LABELED)
    figure = _figure(size + 0.8, size)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= _LABELED:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8 if few else 6)
        axes.set_yticks(range(len(names)), names, fontsize=8 if few else 6)
    if few:
        for row, column in zip(*np.nonzero(confusion), strict=True):
            share = shares[row, column]
            color = "white" if share > 0.6 else "black"
            text = f"{100 * share:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    title = f"Percent of each row, from score {errors.score_threshold:.3g} on"
    axes.set(xlabel="found", ylabel="true class", title=title)
    axes.title.set_fontsize(10)
    figure.colorbar(image, ax=axes, shrink=0.7, format=lambda value, _: f"{100 * value:.0f}")
    save_figure(figure, path)


def plot_reliability(
    probabilities: Mapping[str, np.ndarray], correct: np.ndarray, path: str, *, bins: int = 10
) -> None:
    """Precision against the score: on the diagonal a score says how often it is right.

    Args:
        probabilities: name -> (N,), 0..1; a line each.
        correct: (N,).
        path: the file to write.
        bins: equally wide, up to the highest score of a line; empty ones are left out. A point's
            area says how many detections.
    """
    figure = _figure(5.4, 5.5)
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


def plain(text: str) -> str:
    """Keep matplotlib from taking dollar signs of a name for mathematics."""
    return text.replace("$", r"\$")


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
