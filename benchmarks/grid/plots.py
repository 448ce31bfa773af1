"""The two pictures of the loss benchmark."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from grid.table import OK, Row
from support.contenders import CONTENDERS, FOCAL
from support.problems import SYNTHETIC

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_COLORS = {name: f"C{i}" for i, name in enumerate(n for n in CONTENDERS if n != FOCAL)}
_COLORS[FOCAL] = "black"
Curves = dict[str, list[Row]]


def plot_times(rows: Sequence[Row], path: Path) -> None:
    """Plot times against the number of logits, with the time of a copy; synthetic scores."""
    rows = [row for row in rows if row.scores == SYNTHETIC]
    title = "Forward + backward, synthetic scores: median, 20 % to 80 % shaded"
    _plot_panels(rows, path, title, "time in ms", _draw_times)


def plot_ratios(rows: Sequence[Row], path: Path) -> None:
    """Plot times of our losses relative to focal loss against the number of logits."""
    rows = [row for row in rows if CONTENDERS[row.loss].ours]
    title = "Forward + backward relative to focal loss: median over the scores, extremes shaded"
    _plot_panels(rows, path, title, "time / time of focal loss", _draw_ratios)


def _plot_panels(
    rows: Sequence[Row], path: Path, title: str, ylabel: str, draw: Callable[[Axes, Curves], None]
) -> None:
    """Draw one panel per share of positives, with one legend for all."""
    shares = sorted({row.share for row in rows})
    if not shares:
        return
    width = 3.2 * len(shares) + 2.6
    figure, axes = plt.subplots(1, len(shares), figsize=(width, 4), sharey=True, squeeze=False)
    ordered = sorted(rows, key=lambda row: row.logits)
    for ax, share in zip(axes[0], shares, strict=True):
        curves: Curves = {name: [] for name in CONTENDERS}
        for row in ordered:
            if row.share == share and row.status == OK:
                curves[row.loss].append(row)
        draw(ax, {name: own for name, own in curves.items() if own})
        ax.set(title=f"{share:.1%} positive", xlabel="logits", xscale="log", yscale="log")
        ax.grid(alpha=0.3)
    axes[0][0].set_ylabel(ylabel)
    entries = {line.get_label(): line for ax in axes[0] for line in ax.get_lines()}
    figure.suptitle(f"{title}\n{rows[0].device}", fontsize=11)
    figure.tight_layout(rect=(0, 0, 1 - 2.5 / width, 1))
    figure.legend(entries.values(), entries.keys(), loc="center right", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_times(ax: Axes, curves: Curves) -> None:
    for name, rows in curves.items():
        numbers = [(row.logits, row.both_ms, row.both_p20_ms, row.both_p80_ms) for row in rows]
        x, middle, low, high = np.array(numbers, dtype=float).T
        style = "-" if CONTENDERS[name].ours or name == FOCAL else "--"
        label, color = CONTENDERS[name].label, _COLORS[name]
        ax.plot(x, middle, style, marker=".", label=label, color=color)
        ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    limits = {row.logits: row.limit_ms or 0.0 for rows in curves.values() for row in rows}
    sizes = sorted(limits)
    label = "12 bytes a logit at\ncopy bandwidth"
    ax.plot(sizes, [limits[s] for s in sizes], ":", color="gray", label=label)


def _draw_ratios(ax: Axes, curves: Curves) -> None:
    for name, rows in curves.items():
        sizes = sorted({row.logits for row in rows})
        ratios = [[r.x_focal for r in rows if r.logits == s and r.x_focal] for s in sizes]
        low, middle, high = ([f(r) for r in ratios] for f in (min, statistics.median, max))
        label, color = CONTENDERS[name].label, _COLORS[name]
        ax.plot(sizes, middle, marker=".", label=label, color=color)
        ax.fill_between(sizes, low, high, color=color, alpha=0.15, linewidth=0)
    ax.axhline(1, color="black", linewidth=0.8, label="focal (torchvision)")
