"""Pictures of training runs: loss, AP and score distributions of one or several runs."""

import json
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, NullFormatter

from brloss_d2.errors import InputError
from brloss_d2.evaluation import Matches, analyze
from brloss_d2.evaluation.lrp import best_lrp_threshold
from brloss_d2.evaluation.run import EvaluatedRun
from brloss_d2.plotting.detection_plots import draw_score_histogram
from brloss_d2.plotting.figures import PALETTE, new_figure, plain, save_figure, style_of, tidy

_COLUMNS = 3  # histograms per row
_TASKS = {"bbox/AP": "boxes", "segm/AP": "masks"}


@dataclass(frozen=True)
class TrainedRun:
    """Metrics and detections of a training run.

    Attributes:
        name: name in the legend.
        metrics: name -> iterations and values, (2, S).
        matches: matches of the last saved boxes at IoU 0.5; None if there are none.
        reason: reason why there are none.
    """

    name: str
    metrics: dict[str, np.ndarray]
    matches: Matches | None
    reason: str = ""

    @classmethod
    def load(cls, output_dir: str, name: str) -> "TrainedRun":
        """Load `<output_dir>/metrics.json`, and the detections if they can be read.

        Args:
            output_dir: output folder of train_net.py.
            name: name in the legend.

        Raises:
            InputError: the metrics are missing or damaged.
        """
        metrics = read_metrics(os.path.join(output_dir, "metrics.json"))
        try:
            run = EvaluatedRun.load(output_dir)
            matches = analyze(run.json_file, run.results, run.category_names).matches
            return cls(name, metrics, matches)
        except InputError as error:  # not evaluated yet, or not in COCO format
            return cls(name, metrics, None, str(error))

    def curve(self, metric: str) -> np.ndarray:
        """Return iterations and values, (2, S), with S = 0 if the metric is missing."""
        return self.metrics.get(metric, np.zeros((2, 0)))

    def last(self, metric: str) -> float:
        """Return a metric of the last evaluation; NaN if that evaluation has none."""
        return dict(self.curve(metric).T.tolist()).get(self.last_evaluation, math.nan)

    @property
    def last_evaluation(self) -> float:
        """Iteration of the last evaluation, whether it found something or not; NaN for none."""
        tasks = tuple(task.removesuffix("AP") for task in _TASKS)
        found = [c[0, -1] for name, c in self.metrics.items() if name.startswith(tasks)]
        return float(max(found, default=math.nan))


def read_metrics(path: str) -> dict[str, np.ndarray]:
    """Read the file of detectron2's `JSONWriter`, one JSON record per line.

    A resumed run writes some iterations again: the later record counts. The last line may be
    incomplete while the run is going on.

    Returns:
        Metric name -> iterations and values, (2, S). They are finite but for AP, which is NaN where
        an evaluation found nothing.

    Raises:
        InputError: the file is missing, empty or damaged.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path} does not exist: expected the output folder of train_net.py.")
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line for line in file if line.strip()]
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            iteration = int(record.pop("iteration"))
            values = {k: float(v) for k, v in record.items() if isinstance(v, int | float)}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            if number == len(lines) > 1:
                break
            raise InputError(f"{path}, line {number}: expected a record of metrics.") from error
        for name, value in values.items():
            if np.isfinite(value) or (name in _TASKS and np.isnan(value)):
                found[name][iteration] = value
    if not found:
        raise InputError(f"{path} has no metrics yet.")
    curves = {name: sorted(values.items()) for name, values in found.items()}
    return {name: np.array(values).T for name, values in curves.items()}


def plot_runs(runs: Sequence[TrainedRun], path: str) -> None:
    """Draw the losses, AP and score distributions of runs.

    One run is drawn with its single losses, several with their sums, since those of different loss
    functions have different units.

    Args:
        runs: runs to draw, at least one.
        path: file to write.
    """
    scored = [
        (run, run.matches) for run in runs if run.matches is not None and len(run.matches.scores)
    ]
    heights = [4.4, 2.8 * -(-len(scored) // _COLUMNS)]
    figure = new_figure(11, sum(heights))
    above: Figure | SubFigure = figure
    if scored:
        (above,), (below,) = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)
        _draw_scores(below, scored)
    losses, ap = above.subplots(1, 2)
    draw_losses(losses, runs)
    handles, labels = losses.get_legend_handles_labels()
    columns = 2 if len(runs) in (2, 4) else _COLUMNS if len(runs) > 1 else 5
    above.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9)
    draw_ap(ap, runs)
    save_figure(figure, path)


def draw_losses(axes: Axes, runs: Sequence[TrainedRun]) -> None:
    """Draw the losses of one run, or the sums of those of several, over the iterations.

    Args:
        axes: axes to draw on, without a legend.
        runs: runs to draw, at least one.
    """
    if len(runs) == 1:
        (run,) = runs
        names = sorted(name for name in run.metrics if name.startswith("loss"))
        for number, name in enumerate(names):
            axes.plot(*run.curve(name), label=name, **style_of(number))
        if len(names) != 1:
            axes.plot(*run.curve("total_loss"), color="black", linewidth=2, label="total_loss")
        title = f"Losses of {plain(run.name)}"
    else:
        for number, run in enumerate(runs):
            axes.plot(*run.curve("total_loss"), label=plain(run.name), **style_of(number))
        title = "Total loss (different losses have different units)"
    values = np.concatenate([np.asarray(line.get_ydata()) for line in axes.get_lines()])
    if len(values) and values.min() > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    tidy(axes, xlabel="iteration", ylabel="loss", title=title)


def draw_ap(axes: Axes, runs: Sequence[TrainedRun]) -> None:
    """Draw AP over the iterations, or bars if there was one evaluation.

    Args:
        axes: axes to draw on.
        runs: runs to draw, at least one.
    """
    tasks = [task for task in _TASKS if any(task in run.metrics for run in runs)]
    if not tasks:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "not evaluated yet", ha="center", transform=axes.transAxes)
        return
    found = [(n, run, task) for n, run in enumerate(runs) for task in tasks if task in run.metrics]
    if max(len(run.curve(task)[0]) for _, run, task in found) > 1:
        for number, run, task in found:
            iterations, values = run.curve(task)
            label = f"{plain(run.name)}, {_TASKS[task]}: {_shown(values[-1])}"
            marker = "o" if task == tasks[0] else "^"
            axes.plot(iterations, values, marker=marker, label=label, **style_of(number))
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        tidy(axes, xlabel="iteration", ylabel="AP", title="AP, the last one in the legend")
        axes.legend(fontsize=8)
        return
    # A single evaluation makes no curve.
    for row, (number, run, task) in enumerate(found):
        (iteration,), (value,) = run.curve(task)
        length = np.nan_to_num(value)
        axes.barh(-row, length, color=style_of(number)["color"], height=0.6, alpha=0.5)
        text = f"{_shown(value)} ({_TASKS[task]}, iteration {iteration:.0f})"
        axes.text(1, -row, text, va="center", fontsize=9)
    axes.set_yticks([])
    axes.set_ylim(-max(len(found), 3) + 0.4, 0.6)
    axes.set_xlim(0, 100)
    tidy(axes, xlabel="AP", title="AP")


def _shown(ap: float) -> str:
    return "nothing found" if np.isnan(ap) else f"{ap:.1f}"


def _draw_scores(figure: SubFigure, runs: Sequence[tuple[TrainedRun, Matches]]) -> None:
    rows, columns = -(-len(runs) // _COLUMNS), min(_COLUMNS, len(runs))
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(runs) :]:
        axes.set_axis_off()
    for axes, (run, matches) in zip(panels.flat, runs, strict=False):
        draw_score_histogram(axes, matches)
        threshold = best_lrp_threshold(matches)
        best = ""
        if not math.isnan(threshold):
            axes.axvline(threshold, color=PALETTE[6], linestyle="--", linewidth=1)
            best = f"best threshold {threshold:.3g} (LRP)"
        axes.set_title(f"{plain(run.name)}\n{best}", fontsize=9)
    handles, _ = panels.flat[0].get_legend_handles_labels()
    names = ["false positives", "true positives (IoU 0.5)"]
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=9)
