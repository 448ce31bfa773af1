"""Learning rates that each loss is trained with, and the choice among them on validation data."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from brloss_d2.errors import InputError
from comparison.runs import Outcome, Run


def rate_factors(grid: int, text: str | None) -> list[float]:
    """Return the factors of `--lr-factors`, or of `--lr-grid`: powers of 2 around 1.

    Args:
        grid: number of factors, odd.
        text: factors, separated by commas.

    Raises:
        InputError: a factor is not a positive number or comes twice, there is only one, or the
            grid has no middle.
    """
    if text is None:
        if grid % 2 == 0:
            raise InputError(f"--lr-grid={grid}: expected 1, 3, 5, ...: as many above 1 as below.")
        return [2.0**power for power in range(-(grid // 2), grid // 2 + 1)]
    try:
        factors = sorted(float(part) for part in text.split(","))
    except ValueError:
        factors = []
    if not factors or not all(0 < factor < math.inf for factor in factors):
        raise InputError(f"--lr-factors={text}: expected numbers above 0, such as 0.5,1,2.")
    if len(set(factors)) < len(factors):
        raise InputError(f"--lr-factors={text}: a factor comes twice.")
    if len(factors) == 1:
        raise InputError(f"--lr-factors={text}: one factor leaves no choice; give --lr RATE.")
    return factors


@dataclass(frozen=True)
class Tuning:
    """Results of learning rates on the validation split.

    Attributes:
        metric: name of the metric by which the rate is chosen.
        factors: factors of the learning rate of the recipe, in increasing order.
        rates: rates that each loss is tried with, one for each factor.
        outcomes: outcomes of the trainings for the choice that have finished; None for one that
            has diverged.
    """

    metric: str
    factors: Sequence[float]
    rates: Mapping[str, Sequence[float]]
    outcomes: Mapping[Run, Outcome | None]

    @property
    def lower_is_better(self) -> bool:
        """Whether the metric is an error."""
        return "oLRP" in self.metric

    def values(self, loss: str, rate: float) -> dict[int, float]:
        """Return the metric by seed; a training that has diverged has found nothing."""
        nothing = 100.0 if self.lower_is_better else 0.0
        return {
            run.seed: nothing if found is None else found.metrics[self.metric]
            for run, found in self.outcomes.items()
            if (run.loss, run.rate) == (loss, rate)
        }

    def diverged(self, loss: str, rate: float) -> int:
        """Return the number of trainings that have diverged."""
        runs = self.outcomes.items()
        return sum((r.loss, r.rate) == (loss, rate) and found is None for r, found in runs)

    def means(self, loss: str) -> dict[float, float]:
        """Return the mean over the seeds for each rate that has been tried."""
        found = {rate: self.values(loss, rate).values() for rate in self.rates[loss]}
        return {rate: statistics.fmean(values) for rate, values in found.items() if values}

    def best(self, loss: str) -> float:
        """Return the rate with the best mean; of equal ones the smallest."""
        means = self.means(loss)
        return (min if self.lower_is_better else max)(means, key=lambda rate: means[rate])

    def spread(self, loss: str) -> float:
        """Return the difference between the best mean and the worst."""
        means = self.means(loss).values()
        return max(means) - min(means)

    def is_at_edge(self, loss: str) -> bool:
        """Return whether a better rate may lie beyond those that were tried."""
        return len(self.rates[loss]) > 1 and self.best(loss) in (
            self.rates[loss][0],
            self.rates[loss][-1],
        )


def learning_rates(text: str | None, losses: Sequence[str]) -> dict[str, float]:
    """Parse the value of `--lr`.

    Args:
        text: value such as `0.001,focal=0.01`, where a rate without name is for all other losses.
        losses: names that are allowed.

    Returns:
        Learning rate by loss.

    Raises:
        InputError: a rate that is not a positive number, or an unknown loss.
    """
    found: dict[str, float] = {}  # by loss, "" for all others
    for part in text.split(",") if text else []:
        loss, equals, rate = part.rpartition("=")
        try:
            value = float(rate)
        except ValueError:
            value = 0.0
        if not 0 < value < math.inf or loss in found or (equals and loss not in losses):
            raise InputError(
                f"--lr: cannot use {part!r}: expected RATE, for all, or LOSS=RATE with one of "
                f"{', '.join(losses)}, each once."
            )
        found[loss] = value
    rate_of_others = found.pop("", None)
    return found if rate_of_others is None else {**dict.fromkeys(losses, rate_of_others), **found}
