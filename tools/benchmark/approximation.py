"""How far bucketed Rank & Sort Loss is from the exact one, and what both cost."""

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
from tabulate import tabulate
from torch import Tensor

from benchmark.contenders import CONTENDERS
from benchmark.measure import time_in_turn
from benchmark.scores import SYNTHETIC, Problem, draw
from brloss_d2.losses import BucketedRankSortLoss, RankingLoss, RankSortLoss

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SOURCES = {
    SYNTHETIC: "synthetic",
    "rpn_early": "RPN, first iterations",
    "rpn_late": "RPN, trained",
    "roi_late": "box head, trained",
}
# How many times the time of the bucketed loss to pay for exactness.
_ACCEPTABLE_COST = 1.5


class Study(NamedTuple):
    """Which problems to look at, how many of each kind, and samples of their time."""

    positives: Sequence[int]
    negatives: Sequence[int]
    deltas: Sequence[float]
    problems: int
    timed_rounds: int


# By source, delta and number of positives; over all numbers of negatives.
Errors = dict[tuple[str, float, int], list[float]]


class Cost(NamedTuple):
    """Median milliseconds, forward and backward, of one problem."""

    source: str
    positives: int
    exact: float
    bucketed: float


def measure_errors(study: Study) -> Errors:
    """Relative errors of the negatives' gradient, of problems where they have one."""
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
    """`||bucketed - exact|| / ||exact||` over the negatives; None if the exact one is 0."""
    exact = _negative_gradient(RankSortLoss(delta=delta), problem)
    bucketed = _negative_gradient(BucketedRankSortLoss(delta=delta), problem)
    norm = exact.norm()
    return float((bucketed - exact).norm() / norm) if norm > 0 else None


def _negative_gradient(loss: RankingLoss, problem: Problem) -> Tensor:
    logits = problem.logits.double().requires_grad_()
    loss(logits, problem.labels, problem.quality.double())["loss_rank"].backward()
    assert logits.grad is not None
    return logits.grad[problem.labels == 0]


def measure_costs(study: Study) -> list[Cost]:
    """Times of both losses, taken in turn, on the largest number of negatives."""
    size, costs = max(study.negatives), []
    for source, count in itertools.product((SYNTHETIC, "rpn_early"), study.positives):
        problem = draw(source, size + count, count / (size + count))
        problem.logits.requires_grad_()
        forwards = {name: CONTENDERS[name].prepare(problem) for name in ("rs", "brs")}
        samples = time_in_turn(
            forwards, problem.logits, "cpu", rounds=study.timed_rounds, limit=60.0
        )
        medians = [statistics.median(s.both for s in samples[n] or []) for n in ("rs", "brs")]
        costs.append(Cost(source, count, *medians))
    return costs


def plot(errors: Errors, path: Path) -> None:
    """Error against the number of positives: median, shaded up to 90 %, dotted maximum."""
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
    quantiles = torch.tensor(values).quantile(torch.tensor([0.5, 0.9, 1.0]))
    middle, high, most = quantiles.tolist()
    return middle, high, most


def write_report(study: Study, errors: Errors, costs: list[Cost], measured_on: str) -> str:
    """The report in Markdown."""
    sizes = ", ".join(f"{n:,}" for n in study.negatives)
    return _TEMPLATE.format(
        recommendation=recommend(errors, costs),
        problems=study.problems,
        sizes=sizes,
        measured_on=measured_on,
        errors="\n\n".join(_error_table(errors, delta, study) for delta in study.deltas),
        negatives=f"{max(study.negatives):,}",
        costs=_cost_table(costs),
    )


def recommend(errors: Errors, costs: list[Cost]) -> str:
    """`rs` unless it costs more than half as much again as `brs`: it has no error at all."""
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


def _error_table(errors: Errors, delta: float, study: Study) -> str:
    def cell(source: str, count: int) -> str:
        values = errors.get((source, delta, count))
        return " / ".join(f"{v:.1%}" for v in _spread(values)) if values else "-"

    lines = [(p, *(cell(source, p) for source in SOURCES)) for p in study.positives]
    table = tabulate(lines, ("positives", *SOURCES.values()), tablefmt="github")
    return f"delta {delta}, median / 90 % / maximum:\n\n{table}"


def _cost_table(costs: list[Cost]) -> str:
    lines = [(SOURCES[c.source], *c[1:], c.exact / c.bucketed) for c in costs]
    headers = ("scores", "positives", "`rs` ms", "`brs` ms", "`rs` / `brs`")
    return tabulate(lines, headers, tablefmt="github", floatfmt=".2f")


_TEMPLATE = """\
# `rs` or `brs`: what bucketing changes

*Written by `python tools/bucketing_report.py`; change that, not this file.*

{recommendation}

Bucketed losses (Yavuz et al., ECCV 2024) let the negatives between two successive positives act
as their mean. All negatives of a bucket receive the same gradient, and where positives are few or
the negatives lie mostly below the lowest of them, as in a trained detector, a bucket is as wide as
the ramp. With many positives among the negatives, or scores much closer together than delta, as
at the beginning of training, the buckets are narrow and the error is small. The published
implementation bucketed for speed; this one does not need to.

All this is about gradients. What the error means for the accuracy of a detector was not measured
here.

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
