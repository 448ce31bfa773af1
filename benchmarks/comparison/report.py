"""Tables of a comparison: mean and spread of each loss, each run, and how to read them."""

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from comparison.runs import Outcome, Run, main_metric

METRICS = ("AP", "AP50", "AP75", "oLRP", "mask AP", "mask AP50", "mask AP75", "mask oLRP")
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
    """

    title: str
    losses: Sequence[str]
    outcomes: Mapping[Run, Outcome]
    failures: Mapping[str, str]
    planned: int
    setting: Sequence[str]
    notes: Sequence[str]

    @property
    def metrics(self) -> list[str]:
        """Names from `METRICS` that all evaluations have reported."""
        found = [outcome.metrics for outcome in self.outcomes.values()]
        return [name for name in METRICS if all(name in metrics for metrics in found)]

    @property
    def main(self) -> str:
        """Name of the metric by which losses are compared."""
        return main_metric(self.metrics)

    def values(self, loss: str, metric: str) -> dict[int, float]:
        """Return a metric, or `SECONDS`, by seed."""
        return {
            run.seed: outcome.seconds if metric == SECONDS else outcome.metrics[metric]
            for run, outcome in self.outcomes.items()
            if run.loss == loss
        }

    def differences(self, loss: str) -> dict[int, float]:
        """Return the main metric minus that of the first loss, for seeds that both have."""
        first, own = (self.values(name, self.main) for name in (self.losses[0], loss))
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
    rows = []
    for number, loss in enumerate(study.losses):
        count = len(study.values(loss, study.main))
        seeds = str(count) if count == study.planned else f"{count} of {study.planned}"
        cells = [_cell(study.values(loss, metric).values()) for metric in metrics]
        difference = _cell(study.differences(loss).values(), sign="+") if number else ""
        seconds = _cell(study.values(loss, SECONDS).values(), digits=0)
        rows.append([loss, seeds, *cells, difference, seconds])
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _cell(values: Iterable[float], *, digits: int = 1, sign: str = "") -> str:
    found = mean_and_spread(list(values))
    if found is None:
        return "–"
    mean, spread = found
    text = f"{round(mean, digits) + 0.0:{sign}.{digits}f}"  # no -0.0
    return text if spread is None else f"{text} ± {spread:.{digits}f}"


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
    if failed:
        parts += ["Runs that failed and are in no mean:", failures]
    parts += [
        f"![{study.main} of each loss, and on the way]({picture})",
        "## Every run",
        runs_table,
    ]
    parts += ["## What differs between the losses", notes, "## How to read it", READING]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_csv(study: Study, path: Path) -> None:
    """Write a row for each run, and for mean and standard deviation of each loss."""
    metrics = [*study.metrics, SECONDS]
    difference = f"{study.main} minus {study.losses[0]}"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["loss", "seed", *metrics, difference])
        for loss in study.losses:
            columns = [study.values(loss, metric) for metric in metrics]
            columns.append(study.differences(loss))
            lines: dict[int | str, list[float | None]] = {
                seed: [column.get(seed) for column in columns] for seed in sorted(columns[0])
            }
            found = [mean_and_spread(list(column.values())) for column in columns]
            for i, name in enumerate(("mean", "standard deviation")):
                lines[name] = [pair and pair[i] for pair in found]
            for line, values in lines.items():
                cells = ("" if value is None else f"{value:.4f}" for value in values)
                writer.writerow([loss, line, *cells])
