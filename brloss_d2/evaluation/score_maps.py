"""Maps from scores to the probability of a true positive, and how far off they are.

They keep the order of scores: AP and oLRP stay what they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

_EDGE = 1e-6  # scores of exactly 0 and 1 have no finite logit
_SLOPE = 1e-3  # share of the score itself in an isotonic map


@dataclass(frozen=True)
class TemperatureMap:
    """sigmoid(logit(score) / temperature + bias), one for all classes (Platt scaling).

    A ranking loss does not see a shift of all logits, so that the bias says more than the
    temperature, which cannot move a score of 0.5.

    Attributes:
        temperature: above 0; above 1 for an overconfident detector.
        bias: in logits.
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
        scores: (N,), 0..1, not all of them equal.
        correct: (N,), with true and false positives.

    Raises:
        ValueError: the detections cannot determine a map that keeps their order.
    """
    if np.ptp(scores) == 0 or correct.all() or not correct.any():
        raise ValueError("expected different scores, and both true and false positives")
    logits, targets = torch.from_numpy(_logits(scores)), torch.from_numpy(correct).double()
    center, spread = logits.mean(), logits.std()
    standard = (logits - center) / spread  # well conditioned wherever the scores lie
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
    """Piecewise linear and strictly rising, from (0, 0) to (1, 1).

    Attributes:
        scores: (B,), rising, within 0..1.
        probabilities: (B,), rising, within 0..1.
    """

    scores: Sequence[float]
    probabilities: Sequence[float]

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Map scores (N,), 0..1, to probabilities (N,), 0..1."""
        scores = np.asarray(scores, dtype=float)
        isotonic = np.interp(scores, [0, *self.scores, 1], [0, *self.probabilities, 1])
        # A level piece would make ties of an order.
        return (1 - _SLOPE) * isotonic + _SLOPE * scores


def fit_isotonic(scores: np.ndarray, correct: np.ndarray) -> IsotonicMap:
    """Fit the best non-falling step function (pool adjacent violators) and join its steps.

    Least squares; between the middles of two steps the map is linear.

    Args:
        scores: (N,), 0..1.
        correct: (N,).

    Complexity:
        O(N log N).
    """
    unique, inverse = np.unique(scores, return_inverse=True)
    weights = np.bincount(inverse, minlength=len(unique)).astype(float)
    hits = np.bincount(inverse, weights=correct, minlength=len(unique))
    blocks: list[list[float]] = []  # weight, hits, sum of scores
    columns = (weights.tolist(), hits.tolist(), (weights * unique).tolist())
    for weight, hit, total in zip(*columns, strict=True):
        blocks.append([weight, hit, total])
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][0] >= blocks[-1][1] * blocks[-2][0]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    return IsotonicMap([b[2] / b[0] for b in blocks], [b[1] / b[0] for b in blocks])


def expected_calibration_error(
    probabilities: np.ndarray, correct: np.ndarray, *, bins: int = 15
) -> float:
    """Return the mean distance of probability and precision over equally wide bins, 0..1.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.

    Args:
        probabilities: (N,), 0..1.
        correct: (N,).
        bins: how many.
    """
    if not len(probabilities):
        return float("nan")
    bin_ = np.minimum((probabilities * bins).astype(int), bins - 1)
    gap = np.bincount(bin_, weights=probabilities - correct, minlength=bins)
    return float(np.abs(gap).sum() / len(probabilities))


def _logits(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64).clip(_EDGE, 1 - _EDGE)
    return np.log(scores) - np.log1p(-scores)
