"""Maps from scores to probabilities, and the file next to the checkpoint."""

import json

import numpy as np
import pytest

from brloss_d2.errors import InputError
from brloss_d2.evaluation.calibration import (
    KINDS,
    Calibration,
    calibrated,
    fit_calibration,
    held_out,
    held_out_errors,
    load_calibration,
    save_calibration,
    suggest_thresholds,
)
from brloss_d2.evaluation.matches import Matches
from brloss_d2.evaluation.score_maps import (
    IsotonicMap,
    TemperatureMap,
    expected_calibration_error,
    fit_isotonic,
    fit_temperature,
)

NAMES = ["nut", "bolt", "rare"]


def logit(p):
    return np.log(p) - np.log1p(-p)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def detections(seed=0, size=8000, *, temperature=0.3, bias=9.0):
    """Low scores close together, as a ranking loss leaves them: right with a known probability."""
    rng = np.random.default_rng(seed)
    scores = sigmoid(rng.normal(-3.5, 0.5, size))
    correct = rng.random(size) < sigmoid(logit(scores) / temperature + bias)
    labels = rng.choice(3, size, p=[0.6, 0.39, 0.01])
    objects = np.bincount(labels[correct], minlength=3) + 50
    ious = np.where(correct, rng.uniform(0.5, 1, size), 0)
    return Matches(labels, scores, ious, rng.integers(100, size=size), objects)


def brute_force_isotonic(values):
    """The max-min formula of isotonic regression: max over a <= i of min over b >= i of means."""
    n = len(values)
    means = [[np.mean(values[a : b + 1]) if b >= a else np.inf for b in range(n)] for a in range(n)]
    return [max(min(means[a][i:]) for a in range(i + 1)) for i in range(n)]


def test_temperature_finds_what_made_the_labels():
    matches = detections(size=40_000)
    found = fit_temperature(matches.scores, matches.correct)
    assert found.temperature == pytest.approx(0.3, rel=0.05)
    assert found.bias == pytest.approx(9.0, rel=0.05)


def test_temperature_of_confident_scores():
    rng = np.random.default_rng(0)
    scores = sigmoid(rng.normal(0, 4, 40_000))
    correct = rng.random(40_000) < sigmoid(logit(scores) / 2)
    found = fit_temperature(scores, correct)
    assert found.temperature == pytest.approx(2, rel=0.05)
    assert found.bias == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("correct", [[True] * 4, [False] * 4, [True, True, False, False]])
def test_temperature_refuses_what_would_turn_the_order(correct):
    with pytest.raises(ValueError, match=r"expected|not more often"):
        fit_temperature(np.array([0.1, 0.2, 0.3, 0.4]), np.array(correct))


def test_isotonic_by_hand():
    """Wrong, right, wrong, right: the two in the middle are pooled."""
    found = fit_isotonic(np.array([0.4, 0.2, 0.6, 0.8]), np.array([True, False, False, True]))
    assert found.probabilities == [0, 0.5, 1]
    np.testing.assert_allclose(found.scores, [0.2, 0.5, 0.8])
    np.testing.assert_allclose(found(np.array([0.5])), [0.5])
    np.testing.assert_allclose(found(np.array([0.65])), 0.999 * 0.75 + 0.001 * 0.65)


def test_isotonic_equals_brute_force():
    rng = np.random.default_rng(0)
    correct = rng.random(60) < np.linspace(0, 1, 60)
    scores = np.sort(rng.random(60))
    expected = brute_force_isotonic(correct)
    found = fit_isotonic(scores, correct)
    assert found.probabilities == pytest.approx(sorted(set(np.round(expected, 12))))
    for score, probability in zip(found.scores, found.probabilities, strict=True):
        own = scores[np.isclose(expected, probability)]
        assert score == pytest.approx(own.mean())


def test_isotonic_pools_equal_scores():
    found = fit_isotonic(np.array([0.5, 0.5, 0.5, 0.9]), np.array([True, False, False, True]))
    assert found.probabilities == pytest.approx([1 / 3, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_calibration_is_better_on_new_detections(kind):
    matches, new = detections(0), detections(1)
    calibration = fit_calibration(matches, NAMES, kind)
    after = calibrated(new.scores, new.labels, NAMES, calibration)
    errors = [expected_calibration_error(p, new.correct) for p in (new.scores, after)]
    assert errors[0] > 0.1 and errors[1] < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_calibration_keeps_the_order_within_a_class(kind):
    matches = detections()
    calibration = fit_calibration(matches, NAMES, kind)
    scores = np.sort(np.random.default_rng(0).random(5000))
    for label in range(3):
        labels = np.full(5000, label)
        after = calibrated(scores, labels, NAMES, calibration)
        assert (np.diff(after) > 0)[scores[1:] < 0.3].all(), "where all scores lie"
        assert (np.diff(after) >= 0).all()
        assert after.min() >= 0 and after.max() <= 1


def test_temperature_keeps_the_order_across_classes():
    matches = detections()
    calibration = fit_calibration(matches, NAMES, "temperature")
    after = calibrated(matches.scores, matches.labels, NAMES, calibration)
    np.testing.assert_array_equal(np.argsort(after), np.argsort(matches.scores))


def test_isotonic_has_a_map_for_each_class_with_enough_detections():
    matches = detections()
    calibration = fit_calibration(matches, NAMES, "isotonic")
    assert set(calibration["per_class"]) == {"nut", "bolt"}
    scores = np.array([0.05])
    rare = calibrated(scores, np.array([2]), NAMES, calibration)
    assert rare == IsotonicMap(**calibration["default"])(scores)
    assert rare != calibrated(scores, np.array([0]), NAMES, calibration)


def test_without_calibration_scores_stay():
    scores = np.array([0.3, 0.1])
    assert calibrated(scores, np.zeros(2, int), NAMES, None).tolist() == [0.3, 0.1]


def test_held_out_uses_the_other_half():
    matches = detections()
    own, even = held_out(matches, NAMES, "temperature"), matches.images % 2 == 0
    other = fit_calibration(matches.subset(~even), NAMES, "temperature")
    expected = calibrated(matches.scores[even], matches.labels[even], NAMES, other)
    np.testing.assert_array_equal(own[even], expected)
    errors = held_out_errors(matches, NAMES, "temperature")
    assert errors["ece_after"] < errors["ece_before"] / 3
    assert errors["kept_ece_after"] < errors["kept_ece_before"] / 3
    assert errors["ece_after"] == expected_calibration_error(own, matches.correct)


def test_expected_calibration_error_by_hand():
    """Bins of a half: 0.1 and 0.3, one of two right; 0.9 and 0.7, both right."""
    probabilities, correct = np.array([0.1, 0.3, 0.9, 0.7]), np.array([False, True, True, True])
    error = expected_calibration_error(probabilities, correct, bins=2)
    assert error == pytest.approx(0.5 * (0.5 - 0.2) + 0.5 * (1 - 0.8))
    assert expected_calibration_error(np.ones(1), np.ones(1, bool)) == 0
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, bool)))


def test_the_file(tmp_path):
    matches = detections()
    found = suggest_thresholds(matches, NAMES)
    assert load_calibration(str(tmp_path)) is None
    path = save_calibration(found, str(tmp_path))
    content = json.loads((tmp_path / "calibration.json").read_text())
    assert path == str(tmp_path / "calibration.json")
    assert isinstance(content["score_threshold"], float) and content["calibration"] is None
    assert list(content["per_class"]) == NAMES
    assert load_calibration(str(tmp_path)) == found


@pytest.mark.parametrize("kind", KINDS)
def test_a_calibration_survives_the_file(tmp_path, kind):
    matches = detections()
    calibration = fit_calibration(matches, NAMES, kind)
    save_calibration(Calibration(0.1, {}, calibration=calibration), str(tmp_path))
    again = load_calibration(str(tmp_path)).calibration
    first, second = (
        calibrated(matches.scores, matches.labels, NAMES, c) for c in (calibration, again)
    )
    np.testing.assert_array_equal(first, second)


def test_suggested_thresholds():
    """A class with no object found gets the threshold of the model."""
    labels, scores = np.array([0, 0, 1, 2]), np.array([0.03, 0.02, 0.5, 0.4])
    ious = np.array([0.9, 0.0, 0.8, 0.0])
    found = suggest_thresholds(
        Matches(labels, scores, ious, np.zeros(4, int), np.array([1, 1, 1])), NAMES
    )
    assert found.score_threshold == 0.03
    assert found.per_class == {"nut": 0.03, "bolt": 0.5, "rare": 0.03}
    assert found.best_f1_threshold == 0.03
    nothing = Matches(labels, scores, ious * 0, np.zeros(4, int), np.array([1, 1, 1]))
    with pytest.raises(InputError, match="No detection is correct"):
        suggest_thresholds(nothing, NAMES)


@pytest.mark.parametrize("text", ["{", "[]", '{"threshold": 1}', '{"score_threshold": null}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(InputError, match="calibration"):
        load_calibration(str(tmp_path))


def test_unknown_kinds_and_hopeless_detections_are_refused():
    matches = detections(size=100)
    with pytest.raises(InputError, match="temperature, isotonic"):
        fit_calibration(matches, NAMES, "platt")
    wrong = Matches(**{**vars(matches), "ious": np.zeros(100)})
    with pytest.raises(InputError, match="Cannot fit a temperature"):
        fit_calibration(wrong, NAMES, "temperature")


def test_extreme_scores():
    scores = np.array([0.0, 1.0])
    assert np.isfinite(TemperatureMap(0.5, 1.0)(scores)).all()
    assert IsotonicMap([0.0, 1.0], [0.1, 0.9])(scores).tolist() == pytest.approx([0, 1], abs=0.2)
