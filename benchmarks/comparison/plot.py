"""Picture of a comparison: AP of each loss with each seed, and during training."""

import statistics
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comparison.report import Study, mean_and_spread
from comparison.tuning import Tuning

# Colors of Okabe and Ito, which color-blind readers can distinguish; markers and names help too.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000", "#D55E00", "#8C8C8C")
_MARKERS = "osD^vPX*<>"
_DPI = 130
_TICKS = 8  # largest number of evaluations with a tick each
_LABEL_HEIGHT = 0.045  # distance of neighboring labels, as share of the axis


def plot(study: Study, path: Path) -> None:
    """Write the picture if a run has finished."""
    if not study.outcomes:
        return
    curves = {loss: mean_curve(study, loss) for loss in study.losses}
    with_curves = any(len(curve) > 1 for curve in curves.values())
    count = 1 + with_curves + bool(study.tuning)
    figure = Figure(figsize=(5.5 * count, 4.6), dpi=_DPI, layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    _draw_results(axes[0], study)
    if with_curves:
        _draw_curves(axes[1], curves, study.main)
    if study.tuning:
        _draw_rates(axes[-1], study.tuning)
    figure.suptitle(study.title, fontsize=11)
    figure.savefig(path)


def mean_curve(study: Study, loss: str) -> dict[int, float]:
    """Return the mean main metric by iteration, at iterations at which all runs were evaluated."""
    curves = [outcome.curve for run, outcome in study.outcomes.items() if run.loss == loss]
    shared = set.intersection(*(set(curve) for curve in curves)) if curves else set()
    return {i: statistics.fmean(curve[i] for curve in curves) for i in sorted(shared)}


def _draw_results(ax: Axes, study: Study) -> None:
    for number, loss in enumerate(study.losses):
        values = list(study.values(loss, study.main).values())
        found = mean_and_spread(values)
        if found is None:
            continue
        mean, spread = found
        color, marker = style(number)
        ax.errorbar(
            number - 0.12, mean, spread, fmt=marker, color=color, capsize=5, markersize=8, zorder=3
        )
        spots = [number + 0.14] * len(values)
        ax.scatter(spots, values, s=22, facecolors="none", edgecolors=color, linewidths=1.2)
        low = min(*values, mean - (spread or 0))
        place: dict[str, Any] = dict(
            xytext=(0, -5), textcoords="offset points", ha="center", va="top"
        )
        ax.annotate(f"{mean:.1f}", (number, low), fontsize=8, **place)
    ax.set_xticks(range(len(study.losses)), study.losses)
    ax.set_xlim(-0.6, len(study.losses) - 0.4)
    ax.margins(y=0.12)
    ax.grid(axis="y", alpha=0.3)
    ax.set_ylabel(study.main + ", images to test on" * bool(study.tuning))
    ax.set_title("filled: mean ± standard deviation; open: each seed", fontsize=9)


def _draw_curves(ax: Axes, curves: dict[str, dict[int, float]], metric: str) -> None:
    for number, curve in enumerate(curves.values()):
        color, marker = style(number)
        ax.plot(list(curve), list(curve.values()), marker=marker, color=color, markersize=5)
    evaluated = sorted({i for curve in curves.values() for i in curve})
    if len(evaluated) <= _TICKS:
        ax.set_xticks(evaluated)
    ax.grid(alpha=0.3)
    ax.set_xlabel("iterations trained")
    ax.set_ylabel(f"{metric}, mean over the seeds")
    ax.set_title("on the way", fontsize=9)
    _label_ends(ax, curves, evaluated[-1])


def _draw_rates(ax: Axes, tuning: Tuning) -> None:
    """Draw the metric over the factor of the learning rate; a ring marks the chosen one."""
    curves = {}
    for loss, rates in tuning.rates.items():
        factors = dict(zip(rates, tuning.factors, strict=True))
        curves[loss] = {factors[rate]: mean for rate, mean in tuning.means(loss).items()}
    for number, (loss, curve) in enumerate(curves.items()):
        color, marker = style(number)
        ax.plot(list(curve), list(curve.values()), marker=marker, color=color, markersize=5)
        if curve:
            best = list(tuning.rates[loss]).index(tuning.best(loss))
            spot = tuning.factors[best], curve[tuning.factors[best]]
            ax.plot(*spot, "o", markersize=12, markerfacecolor="none", color=color)
    ax.set_xscale("log", base=2)
    ax.set_xticks(tuning.factors, [f"{factor:g}" for factor in tuning.factors])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.set_xlabel("factor of the learning rate")
    seeds = len({run.seed for run in tuning.outcomes})
    over = f", mean of {seeds} seeds" * (seeds > 1)
    ax.set_ylabel(f"{tuning.metric} on the validation split{over}")
    ax.set_title("ring: chosen", fontsize=9)
    _label_ends(ax, curves, tuning.factors[-1])


def _label_ends(ax: Axes, curves: dict[str, dict[Any, float]], last: float) -> None:
    """Write the names of the curves to the right of the axes, each next to its marker."""
    ends = {loss: curve[last] for loss, curve in curves.items() if last in curve}
    low, high = ax.get_ylim()
    heights = spread_labels(ends, (high - low) * _LABEL_HEIGHT)
    to_the_right = ax.get_yaxis_transform()
    for number, loss in enumerate(curves):
        if loss in heights:
            color, marker = style(number)
            options: dict[str, Any] = dict(transform=to_the_right, clip_on=False)
            ax.plot(1.025, heights[loss], marker=marker, color=color, markersize=6, **options)
            ax.text(1.045, heights[loss], loss, fontsize=9, va="center", **options)
    ax.set_ylim(low, high)


def spread_labels(heights: dict[str, float], gap: float) -> dict[str, float]:
    """Move heights apart until neighbors have distance `gap`; the order is kept."""
    order = sorted(heights, key=lambda name: heights[name])
    moved: list[float] = []
    for name in order:
        moved.append(max(heights[name], moved[-1] + gap) if moved else heights[name])
    shift = statistics.fmean(moved) - statistics.fmean(heights.values()) if moved else 0.0
    return {name: height - shift for name, height in zip(order, moved, strict=True)}


def style(number: int) -> tuple[str, str]:
    """Return color and marker of the loss of that number."""
    return _COLORS[number % len(_COLORS)], _MARKERS[number % len(_MARKERS)]
