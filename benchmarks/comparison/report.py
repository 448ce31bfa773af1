"""Tables of a comparison: mean and spread of each loss, each run, and how to read them."""

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from comparison.runs import COMMON, PREFIXES, RARE, Outcome, Run, main_metric
from comparison.tested import DIFFERENCE, difference_of
from comparison.tuning import Tuning

METRICS = tuple(
    prefix + name
    for prefix in PREFIXES.values()
    for name in ("AP", "AP50", "AP75", RARE, COMMON, "oLRP")
)
SECONDS = "train seconds"
READING = """\
`±` is the sample standard deviation over the seeds: how far single runs scatter, not how well the
mean is known. The difference is taken seed by seed, since runs of one seed share their initial
weights and their data, and then averaged. A handful of seeds shows no significance: a difference
within the spread may be chance, and one beyond it holds for this data, detector, budget and these
learning rates. Losses learn at different speeds and like different rates: before choosing one by
a small difference, train longer, and try rates with `--lr LOSS=RATE`. AP is COCO's, in percent, of
boxes, and of masks if the detector has them; for oLRP, if it is reported, lower is better. The
seconds are those of training alone, without start and evaluation."""
READING_INTERVALS = """\
Brackets: the middle 95 % of 1000 samples in which images and seeds are drawn with replacement, the
same ones for every loss. Of three seeds they say less than of many: the interval is too short."""
READING_TUNED = """\
The learning rate of each loss is the one with the best mean on the validation split, among as many
rates for every loss. The numbers of the first table are those of the images to test on, which
neither training nor choice has seen. `best − worst` is how much the mean on the validation split
depends on the rate. †: the best rate is the smallest or the largest one that was tried, so that
another may be better."""


@dataclass(frozen=True)
class Study:
    """Results of a comparison so far.

    Attributes:
        title: title of the report.
        losses: names of the losses in the order of the table; the first is the reference.
        outcomes: outcomes of the runs that have finished.
        failures: reasons of failure by name of the run.
        planned: number of runs per loss.
        setting: facts about detector, data and machine, a line each.
        notes: differences between the losses that belong to them, a line each.
        metric: name of the metric by which losses are compared; by default that of `main_metric`.
        tuning: results of the learning rates; None if each loss has one.
        intervals: 95 % intervals by loss and metric, or `DIFFERENCE`, as far as they are known.
    """

    title: str
    losses: Sequence[str]
    outcomes: Mapping[Run, Outcome]
    failures: Mapping[str, str]
    planned: int
    setting: Sequence[str]
    notes: Sequence[str]
    metric: str = ""
    tuning: Tuning | None = None
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """Names from `METRICS` that all evaluations have reported."""
        found = [outcome.metrics for outcome in self.outcomes.values()]
        return [n for n in METRICS if found and all(n in metrics for metrics in found)]

    @property
    def main(self) -> str:
        """Name of the metric by which losses are compared."""
        return self.metric or main_metric(self.metrics)

    def values(self, loss: str, metric: str) -> dict[int, float]:
        """Return a metric, or `SECONDS`, by seed."""
        return {
            run.seed: outcome.seconds if metric == SECONDS else outcome.metrics[metric]
            for run, outcome in self.outcomes.items()
            if run.loss == loss
        }

    def differences(self, loss: str, metric: str = "") -> dict[int, float]:
        """Return a metric, or the main one, minus that of the first loss, for seeds of both."""
        first, own = (self.values(name, metric or self.main) for name in (self.losses[0], loss))
        return {seed: own[seed] - first[seed] for seed in own if seed in first}


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None] | None:
    """Return mean and sample standard deviation (None of one value); None without values."""
    if not values:
        return None
    spread = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), spread


def summary_table(study: Study) -> str:
    """Tabulate mean and spread of each loss, in Markdown."""
    metrics = study.metrics
    headers = ["loss", "seeds", *metrics, f"{study.main} − {study.losses[0]}, paired", SECONDS]
    headers[1:1] = ["learning rate"] if study.tuning else []
    rows = []
    for number, loss in enumerate(study.losses):
        count = len(study.values(loss, study.main))
        seeds = str(count) if count == study.planned else f"{count} of {study.planned}"
        known = study.intervals.get(loss, {})
        cells = [
            _cell(study.values(loss, metric).values()) + _range(known.get(metric))
            for metric in metrics
        ]
        difference = _cell(study.differences(loss).values(), sign="+") if number else ""
        if number and study.main in ("AP", "mask AP"):
            difference += _range(known.get(DIFFERENCE), sign="+")
        seconds = _cell(study.values(loss, SECONDS).values(), digits=0)
        rate = [_chosen(study.tuning, loss)] if study.tuning else []
        rows.append([loss, *rate, seeds, *cells, difference, seconds])
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _chosen(tuning: Tuning, loss: str) -> str:
    """Write the chosen rate of a loss, if all have been tried."""
    if len(tuning.means(loss)) < len(tuning.rates[loss]):
        return "–"
    return f"{tuning.best(loss):.3g}{' †' * tuning.is_at_edge(loss)}"


def rates_table(tuning: Tuning) -> str:
    """Tabulate mean and spread of each learning rate on the validation split, in Markdown."""
    rows = []
    for loss, rates in tuning.rates.items():
        row = [loss]
        for rate in rates:
            cell = _cell(tuning.values(loss, rate).values())
            bad = tuning.diverged(loss, rate)
            cell += f" ({bad} diverged)" * bool(bad)
            row.append(f"**{cell}**" if tuning.means(loss) and rate == tuning.best(loss) else cell)
        rows.append([*row, f"{tuning.spread(loss):.1f}" if tuning.means(loss) else "–"])
    factors = [f"rate × {factor:g}" for factor in tuning.factors]
    headers = [f"{tuning.metric}, validation", *factors, "best − worst"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _cell(values: Iterable[float], *, digits: int = 1, sign: str = "") -> str:
    found = mean_and_spread(list(values))
    if found is None:
        return "–"
    mean, spread = found
    text = f"{round(mean, digits) + 0.0:{sign}.{digits}f}"  # no -0.0
    return text if spread is None else f"{text} ± {spread:.{digits}f}"


def _range(found: tuple[float, float] | None, sign: str = "") -> str:
    return f" [{found[0]:{sign}.1f}, {found[1]:{sign}.1f}]" if found else ""


def write_markdown(study: Study, path: Path, picture: str) -> None:
    """Write the report in Markdown, with a link to the picture."""
    seeds = sorted({run.seed for run in study.outcomes})
    values = {loss: study.values(loss, study.main) for loss in study.losses}
    rows = [
        [loss, *(f"{own[seed]:.1f}" if seed in own else "–" for seed in seeds)]
        for loss, own in values.items()
    ]
    headers = [study.main, *(f"seed {seed}" for seed in seeds)]
    runs_table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    failed = [f"{name}: {reason}" for name, reason in study.failures.items()]
    setting, failures, notes = (
        "\n".join(f"- {line}" for line in lines) for lines in (study.setting, failed, study.notes)
    )
    parts = [f"# {study.title}", setting, summary_table(study)]
    parts += [READING_INTERVALS] if study.intervals else []
    if failed:
        parts += ["Runs that failed and are in no mean:", failures]
    parts += [f"![{study.main} of each loss, and on the way]({picture})"]
    if study.tuning:
        parts += ["## Every learning rate", rates_table(study.tuning), READING_TUNED]
    parts += [
        "## Every run",
        runs_table,
    ]
    parts += ["## What differs between the losses", notes, "## How to read it", READING]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_csv(study: Study, path: Path) -> None:
    """Write a row for each run, and for mean and standard deviation of each loss."""
    metrics = [*study.metrics, SECONDS]
    compared = [study.main, *(name for name in (RARE, COMMON) if name in metrics)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["loss", "seed", *metrics, *(f"{name} minus {study.losses[0]}" for name in compared)]
        )
        for loss in study.losses:
            columns = [study.values(loss, metric) for metric in metrics]
            columns += [study.differences(loss, metric) for metric in compared]
            lines: dict[int | str, list[float | None]] = {
                seed: [column.get(seed) for column in columns] for seed in sorted(columns[0])
            }
            found = [mean_and_spread(list(column.values())) for column in columns]
            for i, name in enumerate(("mean", "standard deviation")):
                lines[name] = [pair and pair[i] for pair in found]
            known = study.intervals.get(loss, {})
            for i, name in enumerate(("95 % from", "95 % to")[: 2 * bool(known)]):
                names = (*metrics, *map(difference_of, compared))
                lines[name] = [pair and pair[i] for pair in map(known.get, names)]
            for line, values in lines.items():
                cells = ("" if value is None else f"{value:.4f}" for value in values)
                writer.writerow([loss, line, *cells])


def write_runs(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """Write a row for each training and each evaluation on the images to test on."""
    columns = dict.fromkeys(name for row in rows for name in row)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_overview(studies: Mapping[str, Study], path: Path) -> None:
    """Write the tables of several comparisons below each other, with links to their reports."""
    parts = ["# Losses compared"]
    for name, study in studies.items():
        parts += [f"## [{name}]({name}/table.md)", summary_table(study)]
        parts += [rates_table(study.tuning)] if study.tuning else []
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
