"""Precision, recall and F1 of each class from a score threshold on."""

from dataclasses import dataclass

import numpy as np

from brloss_d2.evaluation.matches import Matches


@dataclass(frozen=True)
class Counts:
    """What the detections from a score threshold on found, class by class.

    A share of nothing is NaN: the precision of a class without detections, the recall of one
    without objects. F1 = 2 TP / (2 TP + FP + FN).

    Attributes:
        true_positives: number of detections that match an object, (K,).
        false_positives: number of all others, (K,).
        false_negatives: number of objects that no detection matches, (K,).
    """

    true_positives: np.ndarray
    false_positives: np.ndarray
    false_negatives: np.ndarray

    @classmethod
    def of(cls, matches: Matches, score_threshold: float) -> "Counts":
        """Count the matches from a threshold on.

        Args:
            matches: matches at the IoU that decides what is found.
            score_threshold: lowest score of the detections that count, 0..1.
        """
        kept = matches.subset(matches.scores >= score_threshold)
        found, correct = (
            np.bincount(labels, minlength=len(kept.num_objects))
            for labels in (kept.labels, kept.labels[kept.correct])
        )
        return cls(correct, found - correct, kept.num_objects - correct)

    def total(self) -> "Counts":
        """Return the sums over the classes, (1,) each."""
        parts = (self.true_positives, self.false_positives, self.false_negatives)
        return Counts(*(part.sum(keepdims=True) for part in parts))

    @property
    def precision(self) -> np.ndarray:
        """TP / (TP + FP), (K,), 0..1."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> np.ndarray:
        """TP / (TP + FN), (K,), 0..1."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, (K,), 0..1."""
        wrong = self.false_positives + self.false_negatives
        return _share(2 * self.true_positives, 2 * self.true_positives + wrong)

    def by_rarity(self) -> list[int]:
        """Return the classes, the rarest one first; those without objects come last."""
        objects = self.true_positives + self.false_negatives
        return np.lexsort((objects, objects == 0)).tolist()

    def rows(self) -> np.ndarray:
        """Return objects, TP, FP, FN, and P, R, F1 in percent, (K, 7)."""
        objects = self.true_positives + self.false_negatives
        numbers = (objects, self.true_positives, self.false_positives, self.false_negatives)
        shares = (self.precision, self.recall, self.f1)
        return np.stack([*numbers, *(100 * share for share in shares)], axis=-1)


COLUMNS = ("objects", "TP", "FP", "FN", "P", "R", "F1")  # of `Counts.rows`


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
