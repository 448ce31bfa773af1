"""Maps from scores to the probability of a true positive, and their calibration error.

They keep the order of scores, so that AP and oLRP do not change.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

_EDGE = 1e-6  # scores of exactly 0 and 1 have no finite logit
_SLOPE = 1e-3  # weight of the score itself in an isotonic map


@dataclass(frozen=True)
class TemperatureMap:
    """sigmoid(logit(score) / temperature + bias), one map for all classes (Platt scaling).

    A ranking loss does not change if all logits are shifted, so that the bias matters more than
    the temperature, which cannot move a score of 0.5.

    Attributes:
        temperature: divisor of the logits, above 0; above 1 for an overconfident detector.
        bias: shift of the logits.
    """

    temperature: float
    bias: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Map scores (N,), 0..1, to probabilities (N,), 0..1."""
        logits = _logits(scores) / self.temperature + self.bias
        return torch.sigmoid(torch.from_numpy(logits)).numpy()


def fit_temperature(scores: np.ndarray, correct: np.ndarray) -> TemperatureMap:
    """Minimize binary cross-entropy over temperature and bias, with LBFGS.

    Args:
        scores: scores of the detections, (N,), 0..1, not all of them equal.
        correct: whether each is a true positive, (N,), with both kinds.

    Raises:
        ValueError: the detections cannot determine a map that keeps their order.
    """
    if np.ptp(scores) == 0 or correct.all() or not correct.any():
        raise ValueError("expected different scores, and both true and false positives")
    logits, targets = torch.from_numpy(_logits(scores)), torch.from_numpy(correct).double()
    center, spread = logits.mean(), logits.std()
    standard = (logits - center) / spread  # well conditioned for all scores
    parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [parameters], max_iter=100, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(
            parameters[0] * standard + parameters[1], targets
        )
        value.backward()
        return value

    optimizer.step(loss)
    slope, offset = (parameters.detach() / torch.stack([spread, spread.new_ones(())])).tolist()
    if slope <= 0:
        raise ValueError("higher scores are not more often correct")
    return TemperatureMap(1 / slope, offset - slope * float(center))


@dataclass(frozen=True)
class IsotonicMap:
    """A piecewise linear and strictly increasing map from (0, 0) to (1, 1).

    Attributes:
        scores: scores of the nodes, (B,), increasing, 0..1.
        probabilities: probabilities of the nodes, (B,), increasing, 0..1.
    """

    scores: Sequence[float]
    probabilities: Sequence[float]

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Map scores (N,), 0..1, to probabilities (N,), 0..1."""
        scores = np.asarray(scores, dtype=float)
        isotonic = np.interp(scores, [0, *self.scores, 1], [0, *self.probabilities, 1])
        # A constant piece would turn an order into ties.
        return (1 - _SLOPE) * isotonic + _SLOPE * scores


def fit_isotonic(scores: np.ndarray, correct: np.ndarray) -> IsotonicMap:
    """Fit the best non-decreasing step function in least squares and join its steps.

    Between the middles of two steps the map is linear.

    Args:
        scores: scores of the detections, (N,), 0..1.
        correct: whether each is a true positive, (N,).

    Complexity:
        O(N log N).
    """
    from scipy.optimize import isotonic_regression  # a third of a second, for this alone

    unique, inverse = np.unique(scores, return_inverse=True)
    weights = np.bincount(inverse).astype(float)
    precision = np.bincount(inverse, weights=correct) / weights
    steps = isotonic_regression(precision, weights=weights).x
    probabilities, step = np.unique(steps, return_inverse=True)
    middles = np.bincount(step, weights * unique) / np.bincount(step, weights)
    return IsotonicMap(middles.tolist(), probabilities.tolist())


def expected_calibration_error(
    probabilities: np.ndarray, correct: np.ndarray, *, bins: int = 15
) -> float:
    """Return the mean distance of probability and precision over equally wide bins, 0..1.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.

    Args:
        probabilities: probabilities of the detections, (N,), 0..1.
        correct: whether each is a true positive, (N,).
        bins: number of bins, at least 1.
    """
    if not len(probabilities):
        return float("nan")
    bin_ = np.minimum((probabilities * bins).astype(int), bins - 1)
    gap = np.bincount(bin_, weights=probabilities - correct, minlength=bins)
    return float(np.abs(gap).sum() / len(probabilities))


def _logits(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64).clip(_EDGE, 1 - _EDGE)
    return np.log(scores) - np.log1p(-scores)
