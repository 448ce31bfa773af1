"""Measure how far bucketed losses are from exact ones: writes docs/bucketing.md and its picture.

    python benchmarks/bucketing.py            # about two minutes on one core
    python benchmarks/bucketing.py --quick    # a look, to output/bucketing_quick

The error of a problem is the relative L2 distance between the gradients that the negatives receive
from the ranking terms of `BucketedRankSortLoss` and of `RankSortLoss`.
"""

import argparse
import itertools
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
from tabulate import tabulate

from brloss_d2.losses import BucketedRankSortLoss, RankSortLoss
from support.contenders import CONTENDERS
from support.machine import ROOT, commit, describe, versions
from support.problems import SYNTHETIC, Problem, draw
from support.timing import time_in_turn

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SOURCES = {
    SYNTHETIC: "synthetic",
    "rpn_early": "RPN, first iterations",
    "rpn_late": "RPN, trained",
    "roi_late": "box head, trained",
}
# Largest ratio of the times of the exact and the bucketed loss at which the exact one is advised.
_ACCEPTABLE_COST = 1.5

# Errors by source, delta and number of positives; those of all numbers of negatives together.
Errors = dict[tuple[str, float, int], list[float]]


class Study(NamedTuple):
    """Problems to measure.

    Attributes:
        positives: numbers of positives.
        negatives: numbers of negatives.
        deltas: half widths of the ramp, in logits.
        problems: number of problems per source and pair of numbers.
        timed_rounds: samples of the time per problem.
    """

    positives: Sequence[int]
    negatives: Sequence[int]
    deltas: Sequence[float]
    problems: int
    timed_rounds: int


FULL = Study(
    positives=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
    negatives=(1_000, 10_000, 100_000),
    deltas=(0.5, 1.0),
    problems=30,
    timed_rounds=31,
)
QUICK = FULL._replace(positives=(1, 20, 500), negatives=(1_000,), problems=5, timed_rounds=3)


class Cost(NamedTuple):
    """Median milliseconds, forward plus backward, of the exact and the bucketed loss."""

    source: str
    positives: int
    exact: float
    bucketed: float


def measure_errors(study: Study) -> Errors:
    """Measure the errors of all problems in which the negatives have a gradient."""
    found: Errors = {}
    for source, count in itertools.product(SOURCES, study.positives):
        for negatives, seed in itertools.product(study.negatives, range(study.problems)):
            size = negatives + count
            problem = draw(source, size, count / size, seed=seed)
            for delta in study.deltas:
                error = gradient_error(problem, delta)
                if error is not None:
                    found.setdefault((source, delta, count), []).append(error)
    return found


def gradient_error(problem: Problem, delta: float) -> float | None:
    """Return `||bucketed - exact|| / ||exact||` over the negatives; None if `exact` is 0."""
    gradients = []
    for loss in (RankSortLoss(delta=delta), BucketedRankSortLoss(delta=delta)):
        logits = problem.logits.double().requires_grad_()
        value = loss(logits, problem.labels, problem.quality.double())["loss_rank"]
        (gradient,) = torch.autograd.grad(value, logits)
        gradients.append(gradient[problem.labels == 0])
    exact, bucketed = gradients
    norm = exact.norm()
    return float((bucketed - exact).norm() / norm) if norm > 0 else None


def measure_costs(study: Study) -> list[Cost]:
    """Time both losses in turn, with the largest number of negatives."""
    size, costs = max(study.negatives), []
    for source, count in itertools.product((SYNTHETIC, "rpn_early"), study.positives):
        problem = draw(source, size + count, count / (size + count))
        problem.logits.requires_grad_()
        forwards = {name: CONTENDERS[name].prepare(problem) for name in ("rs", "brs")}
        samples = time_in_turn(
            forwards, problem.logits, "cpu", rounds=study.timed_rounds, limit=60.0
        )
        exact, bucketed = (
            statistics.median(s.both for s in samples[name] or []) for name in ("rs", "brs")
        )
        costs.append(Cost(source, count, exact, bucketed))
    return costs


def plot(errors: Errors, path: Path) -> None:
    """Plot errors against the number of positives: median, 90 % shaded, maximum dotted."""
    deltas = sorted({delta for _, delta, _ in errors})
    figure, axes = plt.subplots(1, len(deltas), figsize=(10, 4), sharey=True, squeeze=False)
    for ax, delta in zip(axes[0], deltas, strict=True):
        for i, (source, label) in enumerate(SOURCES.items()):
            counts = sorted(p for s, d, p in errors if (s, d) == (source, delta))
            spreads = [_spread(errors[source, delta, p]) for p in counts]
            middle, high, most = zip(*spreads, strict=True)
            ax.plot(counts, middle, marker=".", color=f"C{i}", label=label)
            ax.fill_between(counts, middle, high, color=f"C{i}", alpha=0.2, linewidth=0)
            ax.plot(counts, most, ":", color=f"C{i}")
        ax.set(title=f"delta {delta}", xlabel="positives", xscale="log", yscale="log")
        ax.grid(alpha=0.3)
    axes[0][0].set_ylabel("relative error of the negatives' gradient")
    axes[0][0].legend(fontsize=8)
    figure.suptitle("Bucketed against exact: median, 90 % shaded, maximum dotted", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _spread(values: list[float]) -> tuple[float, float, float]:
    """Return median, 90 % quantile and maximum."""
    middle, high, most = torch.tensor(values).quantile(torch.tensor([0.5, 0.9, 1.0])).tolist()
    return middle, high, most


def write_report(study: Study, errors: Errors, costs: list[Cost], measured_on: str) -> str:
    """Write the report in Markdown.

    Args:
        study: problems that were measured.
        errors: result of `measure_errors`.
        costs: result of `measure_costs`.
        measured_on: device, versions and commit.

    Returns:
        Text of the report.
    """
    headers = ("scores", "positives", "`rs` ms", "`brs` ms", "`rs` / `brs`")
    lines = [(SOURCES[c.source], *c[1:], c.exact / c.bucketed) for c in costs]
    return _TEMPLATE.format(
        recommendation=recommend(errors, costs),
        problems=study.problems,
        sizes=", ".join(f"{n:,}" for n in study.negatives),
        measured_on=measured_on,
        errors="\n\n".join(_error_table(errors, delta, study.positives) for delta in study.deltas),
        negatives=f"{max(study.negatives):,}",
        costs=tabulate(lines, headers, tablefmt="github", floatfmt=".2f"),
    )


def recommend(errors: Errors, costs: list[Cost]) -> str:
    """Recommend `rs`, which has no error, unless it takes over half as much time again as `brs`."""
    default = {key: v for key, v in errors.items() if key[1] == RankSortLoss().delta}
    medians = {key: statistics.median(v) for key, v in default.items()}
    worst = max(medians, key=lambda key: medians[key])
    rates = [cost.exact / cost.bucketed for cost in costs]
    rate = statistics.median(rates)
    facts = (
        f"In the median the exact loss takes {rate:.2f} times as long as the bucketed one (between "
        f"{min(rates):.2f} and {max(rates):.2f} times, [below](#cost)). The negatives' gradient of "
        f"the bucketed one is off by {min(medians.values()):.1%} to {medians[worst]:.0%}, medians "
        f"at the default delta; most with {worst[2]} positives and the scores of "
        f'"{SOURCES[worst[0]]}".'
    )
    if rate <= _ACCEPTABLE_COST:
        return f"**Use `rs`.** {facts} There is little to gain from an approximation."
    return (
        f"**Use `rs` for exactness, `brs` for speed**: a loss is a small part of a training step, "
        f"but measure it. {facts}"
    )


def _error_table(errors: Errors, delta: float, positives: Sequence[int]) -> str:
    """Tabulate the errors of one delta: a row per number of positives, a column per source."""
    lines = []
    for count in positives:
        cells = []
        for source in SOURCES:
            values = errors.get((source, delta, count))
            cells.append(" / ".join(f"{v:.1%}" for v in _spread(values)) if values else "-")
        lines.append((count, *cells))
    table = tabulate(lines, ("positives", *SOURCES.values()), tablefmt="github")
    return f"delta {delta}, median / 90 % / maximum:\n\n{table}"


_TEMPLATE = """\
# `rs` or `brs`: what bucketing changes

*Written by `python benchmarks/bucketing.py`; change that, not this file.*

{recommendation}

Bucketed losses (Yavuz et al., ECCV 2024) let the negatives between two successive positives act
as their mean. All negatives of a bucket receive the same gradient, and where positives are few or
the negatives lie mostly below the lowest of them, as in a trained detector, a bucket is as wide as
the ramp. With many positives among the negatives, or scores much closer together than delta, as
at the beginning of training, the buckets are narrow and the error is small. The published
implementation bucketed for speed; this one does not need to.

All this is about gradients. In [trainings of a small
detector](results.md#exact-or-bucketed-and-how-many-images-are-ranked-together) with 9 to 200
positives per pool, no difference in AP could be measured.

## Error

Relative L2 distance between the gradients that the negatives receive from the ranking terms of
`BucketedRankSortLoss` and `RankSortLoss`, in float64. {problems} problems for each number of
positives and of negatives ({sizes}), pooled over the latter; problems in which no negative has a
gradient are left out. Scores: synthetic (negatives N(0, 1), positives N(1, 1)) and as recorded in
a training of the small detector of `make demo` (see [benchmarks](benchmarks/README.md)); that one
separates its positives well, so take it as the unfavorable end for bucketing.

{errors}

![Error against the number of positives](images/bucketing.png)

## Cost

Forward and backward on {negatives} negatives, delta 0.5, medians of samples taken in turn.
{measured_on}.

{costs}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, help="folder (default: docs)")
    parser.add_argument("--quick", action="store_true", help="few problems, in seconds")
    args = parser.parse_args(argv)
    study = QUICK if args.quick else FULL
    default = ROOT / "output" / "bucketing_quick" if args.quick else ROOT / "docs"
    output = args.output or default
    (output / "images").mkdir(parents=True, exist_ok=True)
    errors, costs = measure_errors(study), measure_costs(study)
    measured_on = f"{describe('cpu')}; {versions()}; commit {commit()}"
    picture = output / "images" / "bucketing.png"
    plot(errors, picture)
    report = write_report(study, errors, costs, measured_on)
    (output / "bucketing.md").write_text(report)
    print(f"Wrote {output / 'bucketing.md'} and {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
