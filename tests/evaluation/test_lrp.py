"""LRP against numbers by hand and against its definition, threshold by threshold."""

import numpy as np
import pytest

from brloss_d2.evaluation.lrp import (
    LRPCurve,
    OptimalLRP,
    best_f1_threshold,
    best_lrp_threshold,
    lrp_curves,
    lrp_table,
    mean_lrp_curve,
)
from brloss_d2.evaluation.matches import Matches


def matches_of(*detections, num_objects):
    """Detections (label, score, IoU); an IoU of 0 is a false positive."""
    labels, scores, ious = np.array(detections, dtype=float).reshape(-1, 3).T
    images = np.zeros(len(labels), int)
    return Matches(labels.astype(int), scores, ious, images, np.array(num_objects))


def lrp_at(matches, label, threshold):
    """LRP, its parts and counts by the definition; TPAMI, equation 3 to 6."""
    kept = [
        iou
        for own, score, iou in zip(matches.labels, matches.scores, matches.ious, strict=True)
        if own == label and score >= threshold
    ]
    tp, fp = sum(iou > 0 for iou in kept), sum(iou == 0 for iou in kept)
    fn = matches.num_objects[label] - tp
    error = sum(1 - iou for iou in kept if iou > 0)
    return (error / 0.5 + fp + fn) / (tp + fp + fn), (error, tp, fp, fn)


def random_matches(seed, *, digits):
    rng = np.random.default_rng(seed)
    size, classes = 200, 4
    correct = rng.random(size) < 0.3
    labels = rng.integers(classes, size=size)
    found = np.bincount(labels[correct], minlength=classes)
    return Matches(
        labels,
        rng.random(size).round(digits),
        np.where(correct, rng.uniform(0.5, 1, size), 0),
        rng.integers(20, size=size),
        found + rng.integers(0, 9, size=classes),
    )


def test_by_hand():
    """Four objects; scores 0.9 (IoU 0.8), 0.8 (wrong), 0.7 (IoU 0.6), 0.6 (wrong).

    LRP at 0.9: (0.2 / 0.5 + 0 + 3) / 4 = 0.85; at 0.8: (0.4 + 1 + 3) / 5 = 0.88; at 0.7:
    (0.6 / 0.5 + 1 + 2) / 5 = 0.84; at 0.6: (1.2 + 2 + 2) / 6 = 0.8667.
    """
    detections = [(0, 0.9, 0.8), (0, 0.8, 0), (0, 0.7, 0.6), (0, 0.6, 0)]
    matches = matches_of(*detections, num_objects=[4])
    (curve,) = lrp_curves(matches).values()
    np.testing.assert_allclose(curve.lrp, [0.85, 0.88, 0.84, 5.2 / 6])
    (row,) = OptimalLRP.of(matches).rows()
    np.testing.assert_allclose(row, [0.84, 0.3, 1 / 3, 0.5, 0.7])
    assert best_lrp_threshold(matches) == 0.7


def test_another_tau_by_hand():
    curve = LRPCurve.of(np.array([0.9]), np.array([0.9]), 2, tau=0.75)
    np.testing.assert_allclose(curve.lrp, [(0.1 / 0.25 + 1) / 2])


@pytest.mark.parametrize("digits", [9, 1])
@pytest.mark.parametrize("seed", range(5))
def test_equals_brute_force(seed, digits):
    """With one digit, most scores are equal to others."""
    matches = random_matches(seed, digits=digits)
    best = OptimalLRP.of(matches)
    for label in range(4):
        thresholds = sorted(set(matches.scores[matches.labels == label]), reverse=True)
        values = [lrp_at(matches, label, t) for t in thresholds]
        lowest = min(range(len(values)), key=lambda i: values[i][0])
        olrp, (error, tp, fp, fn) = values[lowest]
        expected = [olrp, error / tp, fp / (tp + fp), fn / (tp + fn), thresholds[lowest]]
        np.testing.assert_allclose(best.rows()[label], expected)
    mean = best.mean()
    assert mean.olrp == pytest.approx(best.olrp.mean())
    assert mean.localization == pytest.approx(best.localization.mean())


@pytest.mark.parametrize("digits", [9, 1])
def test_the_threshold_for_all_classes_equals_brute_force(digits):
    matches = random_matches(7, digits=digits)
    thresholds = sorted(set(matches.scores), reverse=True)
    lrp = [np.mean([lrp_at(matches, label, t)[0] for label in range(4)]) for t in thresholds]
    f1 = [_f1(matches, t) for t in thresholds]
    np.testing.assert_allclose(mean_lrp_curve(matches), [thresholds, lrp])
    assert best_lrp_threshold(matches) == thresholds[int(np.argmin(lrp))]
    assert best_f1_threshold(matches) == thresholds[int(np.argmax(f1))]
    assert lrp_at(matches, 0, best_lrp_threshold(matches))[0] >= OptimalLRP.of(matches).olrp[0]


def _f1(matches, threshold):
    kept = matches.scores >= threshold
    tp = (matches.ious[kept] > 0).sum()
    return 2 * tp / (kept.sum() + matches.num_objects.sum())


def test_lrp_is_the_weighted_mean_of_its_parts():
    """TPAMI, equation 5: the weights are N_TP / (1 - tau), the detections and the objects."""
    matches = random_matches(3, digits=9)
    for label, curve in lrp_curves(matches).items():
        objects = matches.num_objects[label]
        tp = objects * (1 - curve.false_negative)
        kept = np.arange(1, len(tp) + 1)
        total = tp / 0.5 * np.nan_to_num(curve.localization)
        total += kept * curve.false_positive + objects * curve.false_negative
        np.testing.assert_allclose(curve.lrp, total / (kept - tp + objects))


def test_a_perfect_detector():
    best = OptimalLRP.of(matches_of((0, 0.9, 1), (0, 0.8, 1), (1, 0.1, 1), num_objects=[2, 1]))
    np.testing.assert_array_equal(best.rows()[:, :4], 0)
    np.testing.assert_array_equal(best.thresholds, [0.8, 0.1])


def test_no_detections():
    matches = matches_of(num_objects=[3, 0])
    best = OptimalLRP.of(matches)
    np.testing.assert_array_equal(best.rows()[0], [1, np.nan, np.nan, 1, np.nan])
    assert best.mean().olrp == 1 and best.mean().false_negative == 1
    assert np.isnan(best_lrp_threshold(matches)) and np.isnan(best_f1_threshold(matches))


def test_false_positives_alone_are_as_bad_as_nothing():
    matches = matches_of((0, 0.9, 0), (0, 0.8, 0), num_objects=[3])
    (row,) = OptimalLRP.of(matches).rows()
    np.testing.assert_array_equal(row, [1, np.nan, np.nan, 1, np.nan])
    assert np.isnan(best_lrp_threshold(matches))


def test_classes_without_objects_are_left_out():
    """Of the mean and of the threshold; with an object, their false positives would count."""
    own = [(0, 0.9, 0.8), (0, 0.8, 0.9)]
    strangers = [(1, 0.95, 0), (1, 0.85, 0)]
    without = OptimalLRP.of(matches_of(*own, num_objects=[2]))
    matches = matches_of(*own, *strangers, num_objects=[2, 0])
    best = OptimalLRP.of(matches)
    assert np.isnan(best.rows()[1]).all()
    assert vars(best.mean()) == vars(without.mean())
    assert best_lrp_threshold(matches) == 0.8
    assert mean_lrp_curve(matches)[1].tolist() == lrp_curves(matches)[0].lrp.tolist()


def test_a_class_that_is_missed_counts_in_the_mean():
    best = OptimalLRP.of(matches_of((0, 0.9, 1), num_objects=[1, 5])).mean()
    assert best.olrp == 0.5 and best.localization == 0 and best.false_negative == 0.5


def test_the_order_of_detections_does_not_matter():
    matches = random_matches(1, digits=1)
    shuffled = matches.subset(np.random.default_rng(0).permutation(len(matches.scores)))
    np.testing.assert_allclose(OptimalLRP.of(shuffled).rows(), OptimalLRP.of(matches).rows())


def test_an_unbalanced_score_shift_moves_thresholds_alone():
    matches = random_matches(2, digits=9)
    lower = Matches(**{**vars(matches), "scores": matches.scores * 0.05})
    before, after = OptimalLRP.of(matches), OptimalLRP.of(lower)
    np.testing.assert_array_equal(after.rows()[:, :4], before.rows()[:, :4])
    np.testing.assert_allclose(after.thresholds, before.thresholds * 0.05)


def test_rare_classes_are_at_the_top():
    names, objects = ["often", "never", "rare"], np.array([200, 0, 3])
    best = OptimalLRP.of(matches_of((0, 0.9, 0.8), (2, 0.7, 0.9), num_objects=objects))
    lines = lrp_table(best, names, columns={"AP": np.zeros(3)}, num_objects=objects).split("\n")
    assert lines[0].split()[:3] == ["class", "objects", "AP"]
    rows = [line.split()[:2] for line in lines[2:]]
    assert rows == [["never", "0"], ["rare", "3"], ["often", "200"], ["mean", "-"]]
    plain = lrp_table(best, names).split("\n")
    assert [line.split()[0] for line in plain[2:]] == [*names, "mean"]
    most = lrp_table(best, ["x" * 30] * 3, columns={"AP": np.full(3, 100.0)}, num_objects=objects)
    assert max(map(len, most.split("\n"))) <= 80
