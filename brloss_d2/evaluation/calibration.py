"""Score thresholds and calibration of a model, saved next to its checkpoint."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from typing import Any

import numpy as np

from brloss_d2.errors import InputError, NothingToAnalyzeError
from brloss_d2.evaluation.lrp import OptimalLRP, best_f1_threshold, best_lrp_threshold
from brloss_d2.evaluation.matches import Matches
from brloss_d2.evaluation.score_maps import (
    IsotonicMap,
    TemperatureMap,
    expected_calibration_error,
    fit_isotonic,
    fit_temperature,
)
from brloss_d2.utils.files import write_text

FILE_NAME = "calibration.json"
KINDS = ("temperature", "isotonic")
_ENOUGH = 200  # detections, a tenth of them correct, from which a class gets its own map


@dataclass(frozen=True)
class Calibration:
    """Content of `calibration.json`.

    Attributes:
        score_threshold: lowest score of the detections to keep, the one with the lowest LRP
            averaged over classes. Thresholds are scores of the model, before calibration.
        per_class: class name -> threshold with the lowest LRP of the class.
        best_f1_threshold: threshold with the best F1 of all classes together.
        calibration: None, or `kind` with the parameters of `TemperatureMap`, or `kind`, `default`
            and `per_class` with those of `IsotonicMap`.
        computed_on: data behind the numbers, and the errors of the calibration.
    """

    score_threshold: float
    per_class: Mapping[str, float]
    best_f1_threshold: float | None = None
    calibration: Mapping[str, Any] | None = None
    computed_on: Mapping[str, Any] = field(default_factory=dict)

    def is_of(self, weights: Callable[[], str]) -> bool:
        """Return whether it belongs to weights; one that does not say of which serves all.

        Args:
            weights: function that returns their fingerprint, called only if it is needed.
        """
        own = self.computed_on.get("weights")
        return not own or own == weights()


def suggest_thresholds(matches: Matches, class_names: Sequence[str]) -> Calibration:
    """Return the best thresholds of a model, without a calibration.

    Args:
        matches: matches at IoU 0.5.
        class_names: names of the classes, K of them. A class with no object found gets the
            threshold of the model.

    Raises:
        InputError: no detection is correct.
    """
    threshold = best_lrp_threshold(matches)
    if math.isnan(threshold):
        raise NothingToAnalyzeError("No detection is correct: there is no threshold to suggest.")
    best = OptimalLRP.of(matches).thresholds.tolist()
    return Calibration(
        score_threshold=threshold,
        per_class={
            name: threshold if math.isnan(value) else value
            for name, value in zip(class_names, best, strict=True)
        },
        best_f1_threshold=best_f1_threshold(matches),
    )


def fit_calibration(matches: Matches, class_names: Sequence[str], kind: str) -> dict[str, Any]:
    """Fit a map from score to precision at the IoU of the matches, and return its parameters.

    `temperature` is one map for all classes and keeps the order of all detections. `isotonic` is
    one map per class with enough detections and one for the others; it keeps the order within
    each class.

    Args:
        matches: matches with true and false positives.
        class_names: names of the classes, K of them.
        kind: `temperature` or `isotonic`.

    Returns:
        The content of `Calibration.calibration`.

    Raises:
        InputError: the detections cannot determine the map.
    """
    if kind not in KINDS:
        raise InputError(f"Calibration is {kind!r}: expected one of {', '.join(KINDS)}.")
    if kind == "temperature":
        try:
            return {"kind": kind, **asdict(fit_temperature(matches.scores, matches.correct))}
        except ValueError as error:
            raise InputError(f"Cannot fit a temperature: {error}.") from error
    per_class = {}
    for label, name in enumerate(class_names):
        own = matches.of_class(label)
        if len(own.scores) >= _ENOUGH and own.correct.sum() >= _ENOUGH / 10:
            per_class[name] = asdict(fit_isotonic(own.scores, own.correct))
    default = asdict(fit_isotonic(matches.scores, matches.correct))
    return {"kind": kind, "default": default, "per_class": per_class}


def calibrated(
    scores: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    calibration: Mapping[str, Any] | None,
) -> np.ndarray:
    """Return probabilities, (N,), 0..1, for the scores of a model.

    Args:
        scores: scores of the detections, (N,), 0..1.
        labels: classes of the detections, (N,), 0..K-1.
        class_names: names of the classes, K of them.
        calibration: content of `Calibration.calibration`; None leaves the scores as they are.
    """
    scores = np.asarray(scores, dtype=float)
    if calibration is None:
        return scores
    if calibration["kind"] == "temperature":
        return TemperatureMap(calibration["temperature"], calibration["bias"])(scores)
    probabilities = np.empty_like(scores)
    for label in np.unique(labels):
        name, own = class_names[label], labels == label
        parameters = calibration["per_class"].get(name, calibration["default"])
        probabilities[own] = IsotonicMap(**parameters)(scores[own])
    return probabilities


def held_out(matches: Matches, class_names: Sequence[str], kind: str) -> np.ndarray:
    """Return probabilities, (D,), each from a map that was fitted on the other half of the images.

    Args:
        matches: matches with true and false positives, D detections.
        class_names: names of the classes, K of them.
        kind: `temperature` or `isotonic`.

    Raises:
        InputError: half of the images cannot determine the map.
    """
    probabilities = np.empty_like(matches.scores)
    for half in (0, 1):
        own = matches.images % 2 == half
        other = fit_calibration(matches.subset(~own), class_names, kind)
        probabilities[own] = calibrated(
            matches.scores[own], matches.labels[own], class_names, other
        )
    return probabilities


def held_out_errors(matches: Matches, class_names: Sequence[str], kind: str) -> dict[str, float]:
    """Measure the calibration error on images that the map was not fitted on.

    Args:
        matches: matches with true and false positives.
        class_names: names of the classes, K of them.
        kind: `temperature` or `isotonic`.

    Returns:
        The expected calibration error before and after, 0..1, over all detections
        (`ece_before`, `ece_after`) and over those from the suggested threshold on (`kept_...`).

    Raises:
        InputError: half of the images cannot determine the map.
    """
    values = {"before": matches.scores, "after": held_out(matches, class_names, kind)}
    kept = matches.scores >= best_lrp_threshold(matches)
    return {
        f"{prefix}ece_{when}": expected_calibration_error(value[chosen], matches.correct[chosen])
        for prefix, chosen in (("", np.ones_like(kept)), ("kept_", kept))
        for when, value in values.items()
    }


def save_calibration(calibration: Calibration, output_dir: str) -> str:
    """Write `<output_dir>/calibration.json`, complete or not at all, and return its path."""
    path = os.path.join(output_dir, FILE_NAME)
    write_text(path, json.dumps(asdict(calibration), indent=2, allow_nan=False))
    return path


def load_calibration(output_dir: str) -> Calibration | None:
    """Read `<output_dir>/calibration.json`; return None if there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = os.path.join(output_dir, FILE_NAME)
    cure = "Write the file again with brloss-analyze, or remove it."
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"Cannot read {path}: {error}. {cure}") from error
    content = content if isinstance(content, dict) else {}
    threshold = content.get("score_threshold")
    if not is_score(threshold):
        raise InputError(
            f"{path}: score_threshold is {threshold!r:.40}: expected a number from 0 to 1. {cure}"
        )
    values = {key.name: content[key.name] for key in fields(Calibration) if key.name in content}
    for name in ("per_class", "computed_on"):
        values[name] = content.get(name) if isinstance(content.get(name), dict) else {}
    return Calibration(**values)


def is_score(value: object) -> bool:
    """Return whether a value is a number from 0 to 1."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) <= 1
