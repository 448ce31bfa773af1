"""Gather finished comparisons in docs/results, and draw the figures of docs/results.md.

    python benchmarks/results.py --gather imbalance output/rare_shapes output/rare_pcb
    python benchmarks/results.py

Each comparison is an output folder of compare_losses.py. `--gather NAME` writes all of their
trainings and evaluations to NAME.csv, and means and intervals to NAME_means.csv, after the
comparisons of other names that are there. Figures are drawn from these files. Nothing is written if
that fails.
"""

import argparse
import csv
import re
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, Transform

from brloss_d2.cli.common import make_parser, run_program
from brloss_d2.errors import InputError
from comparison.plot import spread_labels, style
from comparison.runs import COMMON, RARE, main_metric

ROOT = Path(__file__).parents[1]
RANKING = ("ap", "bap", "alrp", "rs", "brs")
LOSSES = ("ce", "wce", "focal", "qfl", "iabce", "rs", "brs", "ap", "bap")  # in order of their style
NEEDED = {"imbalance": (RARE, COMMON)}  # metrics of figures, by name of their files
STATISTICS = {"mean", "95 % from", "95 % to"}
TITLES = {  # of what is in names of comparisons and of data
    "atss": "ATSS",
    "bccd": "BCCD",
    "cards": "cards\n(15 images)",
    "deeppcb": "DeepPCB",
    "faster_rcnn": "Faster R-CNN",
    "mask_rcnn": "Mask R-CNN",
    "nuts": "nuts\n(2 images)",
    "pcb": "DeepPCB",
    "wbc": "white cells of BCCD",
}
# What docs/results.md says of the trainings, too.
SCRATCH = "Slim ATSS from scratch, {}; ranking losses solid, score-based losses dashed"
BARS = "; bars: 95 % intervals"
Row = dict[str, str]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = make_parser(__doc__)
    option = parser.add_argument
    option("comparisons", nargs="*", type=Path, help="output folders of compare_losses.py")
    option("--gather", metavar="NAME", help="name of the files to write; default: draw only")
    option("--folder", type=Path, default=ROOT / "docs" / "results", help="folder of the files")
    return run_program(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> int:
    if bool(args.gather) != bool(args.comparisons):
        raise InputError("Name comparisons together with --gather NAME.")
    with tempfile.TemporaryDirectory() as name:
        draft = Path(name)
        for path in args.folder.glob("*.csv"):
            shutil.copy(path, draft)
        if args.gather:
            gather([path.resolve() for path in args.comparisons], draft, args.gather)
        try:
            for draw in (draw_imbalance, draw_rates, draw_pools, draw_pretrained):
                draw(draft)
        except (KeyError, ValueError) as error:
            raise InputError(f"The files cannot be drawn: {error!r}.") from error
        args.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(draft.iterdir()):
            shutil.copy(path, args.folder)
    return 0


def gather(comparisons: Sequence[Path], folder: Path, name: str) -> None:
    """Write the runs of the comparisons, and their means and intervals.

    Comparisons of other names that are in the files stay there.
    """
    if not re.fullmatch(r"\w+(?<!_means)", name):
        raise InputError(f"--gather {name}: expected a word, not with _means at its end.")
    if len({path.name for path in comparisons}) < len(comparisons):
        raise InputError("Two comparisons have the same name, that of their folder.")
    runs = _without(_read_if_there(folder / f"{name}.csv"), comparisons)
    means = _without(_read_if_there(folder / f"{name}_means.csv"), comparisons)
    for comparison in comparisons:
        tables = sorted([*comparison.glob("table.csv"), *comparison.glob("*/table.csv")])
        if not tables or not (comparison / "runs.csv").is_file():
            raise InputError(f"{comparison}: expected an output folder of compare_losses.py.")
        own = read(comparison / "runs.csv")
        if not own or not {"data", "loss"} <= own[0].keys():
            raise InputError(f"{comparison}/runs.csv: expected runs with data and loss.")
        losses = {row["loss"] for row in own}
        runs += [{"comparison": comparison.name, **row} for row in own]
        for table in tables:
            case = own[0]["data"] if table.parent == comparison else table.parent.name
            found = [row for row in read(table) if row.get("seed") in STATISTICS]
            _check_means(found, table, losses, NEEDED.get(name, ()))
            means += [{"comparison": comparison.name, "case": case, **row} for row in found]
    for file, rows in ((f"{name}.csv", runs), (f"{name}_means.csv", means)):
        write(rows, folder / file)
        print(f"{file}: {len(rows)} rows.")


def _check_means(
    rows: Sequence[Row], table: Path, losses: Collection[str], needed: Collection[str]
) -> None:
    """Check that all losses of a comparison have means and intervals, and can be drawn."""
    by_loss = _grouped(rows, "loss")
    complete = {loss for loss, own in by_loss.items() if {row["seed"] for row in own} == STATISTICS}
    losses = {*losses, *by_loss}
    if losses - complete:
        missing = ", ".join(sorted(losses - complete))
        raise InputError(f"{table}: no intervals of {missing}: repeat the comparison to finish it.")
    if losses - {*LOSSES}:
        raise InputError(
            f"{table}: {', '.join(sorted(losses - {*LOSSES}))} has no style in LOSSES."
        )
    if {*needed} - {*rows[0]}:
        raise InputError(f"{table}: expected {', '.join(needed)}; see --rare.")


def _without(rows: Iterable[Row], comparisons: Iterable[Path]) -> list[Row]:
    names = {comparison.name for comparison in comparisons}
    return [row for row in rows if row["comparison"] not in names]


def read(path: Path) -> list[Row]:
    """Read a CSV file.

    Raises:
        InputError: it is none, or its rows differ in length.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: {error}") from error
    if any(None in row or None in row.values() for row in rows):
        raise InputError(f"{path}: rows differ in length.")
    return rows


def write(rows: Sequence[Row], path: Path) -> None:
    """Write a CSV file with the columns of all rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def interval_rows(rows: Sequence[Row], comparison: str, metric: str) -> list[str]:
    """Return rows of a Markdown table: a loss, and mean and interval of a metric in each case."""
    found, cases = _by_case(_comparisons(rows)[comparison], metric)
    return [
        " | ".join([f"| {loss}", *(_cell(values[case]) for case in cases)]) + " |"
        for loss, values in found.items()
    ]


def mean_row(rows: Sequence[Row], comparison: str, metric: str, losses: Sequence[str]) -> str:
    """Return the end of a row of a Markdown table: the mean of each loss, and differences.

    Args:
        rows: means and intervals of several comparisons.
        comparison: name of the comparison, which has a single case.
        metric: name of the metric.
        losses: losses whose differences to the first loss of the comparison are shown.
    """
    own = _comparisons(rows)[comparison]
    found, (case,) = _by_case(own, metric)
    means = [f"{values[case]['mean']:.1f}" for values in found.values()]
    differences, _ = _by_case(own, f"{metric} minus {own[0]['loss']}")
    return " | ".join([*means, *(_cell(differences[loss][case]) for loss in losses)]) + " |"


def _by_case(
    rows: Iterable[Row], metric: str
) -> tuple[dict[str, dict[str, dict[str, float]]], list[str]]:
    """Return a metric by loss, case and statistic, and the cases by number at the end and name."""
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row[metric]:
            found[row["loss"]][row["case"]][row["seed"]] = float(row[metric])
    cases = dict.fromkeys(case for own in found.values() for case in own)
    return found, sorted(cases, key=lambda case: (_number(case), case))


def _cell(values: Mapping[str, float]) -> str:
    return f"{values['mean']:.1f} [{values['95 % from']:.1f}, {values['95 % to']:.1f}]"


def draw_imbalance(folder: Path) -> None:
    """Draw the AP of rare and of common classes by how much rarer they are."""
    figure = Figure(dpi=110, layout="constrained")
    groups = _comparisons(_read_if_there(folder / "imbalance_means.csv"))
    for (name, rows), line in zip(groups.items(), _axes(figure, len(groups)), strict=True):
        for ax, metric in zip(line, (RARE, COMMON), strict=True):
            _draw_cases(ax, rows, metric, "1 : {:g}")
            what = "rare class" if metric == RARE else "mean of the other classes"
            ax.set_title(f"{_title(name)}: {what}", fontsize=10)
            ax.set_ylabel("AP, test images")
            ax.set_xlabel("objects of the rare class : objects of each other class")
    figure.suptitle(SCRATCH.format("300 iterations, 3 seeds") + BARS)
    _save(figure, folder / "imbalance.png")


def draw_pools(folder: Path) -> None:
    """Draw the AP of exact and of bucketed losses by how many images are ranked together."""
    figure = Figure(dpi=110, layout="constrained")
    means = _read_if_there(folder / "pools_means.csv")
    groups = _comparisons({**r, "comparison": r["comparison"].rpartition("_")[0]} for r in means)
    for (name, rows), line in zip(groups.items(), _axes(figure, len(groups)), strict=True):
        pairs = {"brs": "AP minus rs", "bap": "AP minus ap"}
        differences = [
            {**row, "AP": row[pairs[row["loss"]]]} for row in rows if row["loss"] in pairs
        ]
        line[1].axhline(0, color="black", linewidth=0.8)
        for ax, values in zip(line, (rows, differences), strict=True):
            _draw_cases(ax, values, "AP", "{:g}")
            ax.set_xlabel("images per pool (8: the whole batch)")
        data = _title(name)
        line[0].set(title=f"{data}: AP", ylabel="AP, validation split")
        line[1].set(title=f"{data}: brs minus rs, bap minus ap", ylabel="difference of AP")
    figure.suptitle(
        f"Exact (rs, ap) and bucketed ranking (brs, bap): slim ATSS, 200 iterations, 3 seeds{BARS}"
    )
    _save(figure, folder / "pools.png")


def draw_pretrained(folder: Path) -> None:
    """Draw the AP of detectors with a pretrained backbone on each data set."""
    figure = Figure(dpi=110, layout="constrained")
    groups = _comparisons(_read_if_there(folder / "pretrained_means.csv"))
    widths = [1.1 * (1 + len({row["case"] for row in rows})) for rows in groups.values()]
    axes = _axes(figure, int(bool(groups)), widths).flat
    for (name, rows), ax in zip(groups.items(), axes, strict=True):
        metric, _ = compared(rows)
        _draw_cases(ax, rows, metric, "", connected=False)
        ax.set_title(_title(name), fontsize=10)
        ax.set_ylabel(f"{metric}, test images")
    figure.suptitle(f"MobileNetV2 from ImageNet weights, 300 iterations, 3 seeds{BARS}")
    _save(figure, folder / "pretrained.png")


def compared(rows: Sequence[Row]) -> tuple[str, str]:
    """Return the main metric of a comparison, and the loss that the others are compared with."""
    return main_metric([name for name, value in rows[0].items() if value]), rows[0]["loss"]


def _title(name: str) -> str:
    """Return what a figure calls the data or the detector of a comparison, or a case."""
    own = re.sub("^(rare|tune|pools|pretrained)_", "", name)
    return TITLES.get(own, own)


def _comparisons(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows of each comparison."""
    return _grouped(rows, "comparison")


def _grouped(rows: Iterable[Row], column: str) -> dict[str, list[Row]]:
    """Return the rows by what they have in a column."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[column]].append(row)
    return found


def _axes(figure: Figure, lines: int, widths: Sequence[float] = (5.5, 5.5)) -> np.ndarray:
    """Return axes, (lines, columns), and fit the figure to columns of these widths in inches."""
    if not lines:
        return np.empty((0, len(widths)), dtype=object)
    figure.set_size_inches(max(5.5, sum(widths)), 4.3 * lines)  # room for the title
    return figure.subplots(lines, len(widths), squeeze=False, width_ratios=widths)


def _save(figure: Figure, path: Path) -> None:
    if figure.axes:
        figure.savefig(path)


def _draw_cases(
    ax: Axes, rows: Sequence[Row], metric: str, tick: str, *, connected: bool = True
) -> None:
    """Draw a metric and its intervals by case, for each loss.

    Args:
        ax: axes to draw into.
        rows: means and intervals of one comparison.
        metric: name of the metric.
        tick: format of the number at the end of a case; empty: the name of the case.
        connected: whether the cases are in an order, so that a line connects them.
    """
    found, cases = _by_case(rows, metric)
    step = 0.05 if connected else min(0.1, 0.5 / len(found))
    for number, (loss, own) in enumerate(found.items()):
        places = [i + step * (number - (len(found) - 1) / 2) for i in range(len(cases))]
        ends = [(own[case]["95 % from"], own[case]["95 % to"]) for case in cases]
        look = _look(loss) if connected else {**_look(loss), "linestyle": ""}
        ax.plot(places, [own[case]["mean"] for case in cases], **look)
        # Apart from the mean, which a skewed interval may not contain.
        middles, halves = [fmean(end) for end in ends], [(high - low) / 2 for low, high in ends]
        ax.errorbar(places, middles, halves, fmt="none", ecolor=look["color"], capsize=2.5)
    _label(ax, {loss: own[cases[-1]]["mean"] for loss, own in found.items()})
    ticks = [tick.format(_number(case)) or _title(case) for case in cases]
    ax.set_xticks(range(len(cases)), ticks)
    ax.set_xlim(-0.3, len(cases) - 0.7)
    ax.grid(axis="y", alpha=0.3)


def _number(case: str) -> float:
    """Return the number at the end of the name of a case, 0 without one."""
    found = re.search(r"\d+(\.\d+)?$", case)
    return float(found.group()) if found else 0


def draw_rates(folder: Path) -> None:
    """Draw AP on the validation split by learning rate, and how far it is below the best."""
    figure = Figure(dpi=110, layout="constrained")
    groups = _comparisons(validated(_read_if_there(folder / "learning_rates.csv")))
    for (name, rows), line in zip(groups.items(), _axes(figure, len(groups)), strict=True):
        curves = rate_curves(rows)
        _draw_curves(line[0], curves)
        _draw_curves(
            line[1],
            {loss: {f: y - max(c.values()) for f, y in c.items()} for loss, c in curves.items()},
            limits=(-36, 2),
        )
        data = _title(name)
        line[0].set(title=f"{data}: AP, validation split, mean of 2 seeds", ylabel="AP")
        line[1].set(title=f"{data}: AP minus AP at the best rate of each loss")
    figure.suptitle(SCRATCH.format("300 iterations"))
    _save(figure, folder / "learning_rates.png")


def validated(rows: Iterable[Row]) -> list[Row]:
    """Return the trainings, which are evaluated on the validation split."""
    return [row for row in rows if row["images"] == "val"]


def rate_curves(rows: Iterable[Row], metric: str = "AP") -> dict[str, dict[float, float]]:
    """Return the mean of a metric over the seeds by loss and factor of the learning rate."""
    values: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        ap = 0.0 if row["diverged"] == "1" else float(row[metric])
        values[row["loss"]][float(row["factor"])].append(ap)
    return {
        loss: {factor: fmean(own[factor]) for factor in sorted(own)} for loss, own in values.items()
    }


def rate_rows(rows: Iterable[Row]) -> list[str]:
    """Return rows of a Markdown table: a loss, and its mean AP with each rate, the best in bold."""
    lines = []
    for loss, curve in rate_curves(rows).items():
        cells = [
            f"**{ap:.1f}**" if ap == max(curve.values()) else f"{ap:.1f}" for ap in curve.values()
        ]
        lines.append(" | ".join([f"| {loss}", *cells]) + " |")
    return lines


def cost_rows(rows: Iterable[Row], comparison: str, metric: str) -> list[str]:
    """Return rows of a Markdown table: a loss, and how far a metric is below its best rate.

    Two numbers per data set, in the order of their names: those of the smallest and of the
    largest rate, on the validation split and with the first seed, which has all rates.
    """
    first = [row for row in validated(_comparisons(rows)[comparison]) if row["seed"] == "1"]
    cells: dict[str, list[str]] = defaultdict(list)
    for _, own in sorted(_grouped(first, "data").items()):
        for loss, curve in rate_curves(own, metric).items():
            ends = (max(curve.values()) - curve[rate] for rate in (min(curve), max(curve)))
            cells[loss].append(", ".join(f"{cost:.1f}" for cost in ends))
    return [" | ".join([f"| {loss}", *row]) + " |" for loss, row in cells.items()]


def _draw_curves(
    ax: Axes, curves: dict[str, dict[float, float]], limits: tuple[float, float] | None = None
) -> None:
    for loss, curve in curves.items():
        ax.plot(list(curve), list(curve.values()), **_look(loss))
    factors = sorted({factor for curve in curves.values() for factor in curve})
    ax.set_xscale("log", base=2)
    ax.set_xticks(factors, [f"{factor:g}" for factor in factors])
    ax.minorticks_off()
    ax.set_xlabel("learning rate / 0.001")
    ax.grid(alpha=0.3)
    ax.set_ylim(limits)
    _label(ax, {loss: list(curve.values())[-1] for loss, curve in curves.items()})


def _look(loss: str) -> dict[str, Any]:
    """Return how lines and markers of a loss are drawn."""
    color, marker = style(LOSSES.index(loss))
    line, width = ("-", 2) if loss in RANKING else ("--", 1)
    return dict(color=color, marker=marker, markersize=6, linestyle=line, linewidth=width)


def _label(ax: Axes, ends: dict[str, float]) -> None:
    """Write the names of the losses to the right of the axes, each next to its marker."""
    low, high = ax.get_ylim()
    gap = (high - low) / 20
    heights = spread_labels({k: min(max(v, low), high) for k, v in ends.items()}, gap)
    above = max(0.0, max(heights.values(), default=low) - high + gap / 2)
    for loss, height in heights.items():
        height -= above
        ax.plot(1, height, transform=_beside(ax, 9), clip_on=False, **_look(loss))
        ax.text(1, height, loss, transform=_beside(ax, 15), fontsize=9, va="center")
    ax.set_ylim(low, high)


def _beside(ax: Axes, points: float) -> Transform:
    """Return coordinates: x = 1 is `points` to the right of the axes, y is theirs."""
    return ax.get_yaxis_transform() + ScaledTranslation(points / 72, 0, ax.figure.dpi_scale_trans)


def _read_if_there(path: Path) -> list[Row]:
    return read(path) if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
