import numpy as np
import pytest

from brloss_d2.evaluation import Matches, analyze
from brloss_d2.evaluation.counts import Counts
from brloss_d2.evaluation.lrp import best_lrp_threshold
from brloss_d2.evaluation.run import EvaluatedRun
from tests.helpers.imaginary_run import write_run

# Class 0: two of three objects found, one false; 1: nothing kept; 2: no objects; 3: nothing at all.
MATCHES = Matches(
    labels=np.array([0, 0, 0, 1, 2, 0]),
    scores=np.array([0.9, 0.8, 0.5, 0.4, 0.7, 0.1]),
    ious=np.array([0.8, 0.0, 0.6, 0.9, 0.0, 0.7]),
    images=np.zeros(6, int),
    num_objects=np.array([3, 2, 0, 0]),
)


def test_counts_and_shares_by_hand():
    counts = Counts.of(MATCHES, 0.5)  # a score equal to the threshold counts
    assert counts.true_positives.tolist() == [2, 0, 0, 0]
    assert counts.false_positives.tolist() == [1, 0, 1, 0]
    assert counts.false_negatives.tolist() == [1, 2, 0, 0]
    nan = float("nan")
    assert counts.precision.tolist() == pytest.approx([2 / 3, nan, 0, nan], nan_ok=True)
    assert counts.recall.tolist() == pytest.approx([2 / 3, 0, nan, nan], nan_ok=True)
    assert counts.f1.tolist() == pytest.approx([2 / 3, 0, 0, nan], nan_ok=True)
    total = counts.total().rows().tolist()
    assert total == [pytest.approx([5, 2, 2, 3, 50, 40, 400 / 9])]


def test_errors_of_classes_and_of_images_add_up(tmp_path):
    """Two ways of matching: that of the evaluator, and that of the pictures."""
    (tmp_path / "brs").mkdir()
    run = EvaluatedRun.load(str(write_run(tmp_path / "brs")))
    matches = analyze(run.json_file, run.results, run.category_names).matches
    for threshold in (best_lrp_threshold(matches), 0.02):
        total = Counts.of(matches, threshold).total()
        pairs = run.worst_pairs(100, threshold)
        missed, false = np.sum([pair.errors for pair in pairs], axis=0)
        assert missed == total.false_negatives[0] and false == total.false_positives[0] > 0
        errors = [pair.badness for pair in pairs]
        assert errors == sorted(errors, reverse=True)
