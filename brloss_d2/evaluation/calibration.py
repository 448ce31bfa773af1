"""Score thresholds and calibration of a model, kept beside its checkpoint in `calibration.json`."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from brloss_d2.errors import InputError
from brloss_d2.evaluation.lrp import OptimalLRP, best_f1_threshold, best_lrp_threshold
from brloss_d2.evaluation.matches import Matches
from brloss_d2.evaluation.score_maps import (
    IsotonicMap,
    TemperatureMap,
    expected_calibration_error,
    fit_isotonic,
    fit_temperature,
)

FILE_NAME = "calibration.json"
KINDS = ("temperature", "isotonic")
_ENOUGH = 200  # detections of a class, and a tenth of it found objects, for a map of its own


@dataclass(frozen=True)
class Calibration:
    """What `calibration.json` says.

    Attributes:
        score_threshold: keep detections from this score on; it has the lowest LRP averaged over
            classes. Thresholds are for the scores of the model, before calibration.
        per_class: class name -> threshold with the lowest LRP of the class.
        best_f1_threshold: the threshold with the best F1 of all classes together.
        calibration: None, or `kind` with the parameters of `TemperatureMap`, or `kind`, `default`
            and `per_class` with those of `IsotonicMap`.
        computed_on: what the numbers were computed on, and how well the calibration does.
    """

    score_threshold: float
    per_class: Mapping[str, float]
    best_f1_threshold: float | None = None
    calibration: Mapping[str, Any] | None = None
    computed_on: Mapping[str, Any] = field(default_factory=dict)


def suggest_thresholds(matches: Matches, class_names: Sequence[str]) -> Calibration:
    """Return the thresholds that suit a model best, without a calibration.

    Args:
        matches: at an IoU of 0.5.
        class_names: (K,). A class of which nothing was found gets the threshold of the model.

    Raises:
        InputError: no detection is correct.
    """
    threshold = best_lrp_threshold(matches)
    if math.isnan(threshold):
        raise InputError("No detection is correct: there is no threshold to suggest.")
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
    """Return a map from score to precision at the IoU of the matches, as the file holds it.

    `temperature` is one map for all classes and keeps the order of all detections. `isotonic` is
    a map for each class with enough detections and one for the others; it keeps the order within
    a class.

    Args:
        matches: with true and false positives.
        class_names: (K,).
        kind: one of `KINDS`.

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
    """Return probabilities (N,), 0..1, for the scores of a model.

    Args:
        scores: (N,), 0..1.
        labels: (N,), 0..K-1.
        class_names: (K,).
        calibration: see `Calibration.calibration`; None leaves the scores as they are.
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
    """Return probabilities (D,), each from a map fitted on the other half of the images.

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
    """Measure a calibration where it was not fitted.

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
    """Write `<output_dir>/calibration.json`; return its path. It appears complete or not at all."""
    path = os.path.join(output_dir, FILE_NAME)
    try:
        with open(f"{path}.incomplete", "w", encoding="utf-8") as file:
            json.dump(asdict(calibration), file, indent=2, allow_nan=False)
        os.replace(f"{path}.incomplete", path)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}.") from error
    return path


def load_calibration(output_dir: str) -> Calibration | None:
    """Read `<output_dir>/calibration.json`; None if there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = os.path.join(output_dir, FILE_NAME)
    if not os.path.isfile(path):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            found = Calibration(**json.load(file))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is no calibration ({error}): write it again with "
            "tools/analyze_detections.py, or remove it."
        ) from error
    if not isinstance(found.score_threshold, float | int):
        raise InputError(f"{path}: score_threshold is {found.score_threshold!r}, no number.")
    return found
