"""Localization recall precision (LRP) and its optimum over score thresholds, oLRP.

Oksuz et al., "Localization Recall Precision (LRP): A New Performance Metric for Object Detection",
ECCV 2018, and "One Metric to Measure Them All: Localization Recall Precision (LRP) for Evaluating
Visual Detection Tasks", TPAMI 2021. Lower is better. All values are between 0 and 1 unless they are
said to be in percent.

This is code of this package: hotcoco and pycocotools have no LRP. Every score is tried as a
threshold, since the scores of a ranking loss can all lie within one step of a coarse grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from tabulate import tabulate

from brloss_d2.evaluation.matches import Matches
from brloss_d2.utils.text import printable

TAU = 0.5  # IoU from which a detection matches, as in the papers
LRP_METRICS = ("oLRP", "oLRP_Loc", "oLRP_FP", "oLRP_FN")


@dataclass(frozen=True)
class LRPCurve:
    """LRP of one class as a function of the score threshold.

    LRP = (sum of (1 - IoU) / (1 - tau) over true positives + N_FP + N_FN) / (N_TP + N_FP + N_FN).

    Attributes:
        thresholds: distinct scores, (S,), decreasing.
        lrp: LRP per threshold, (S,).
        localization: mean 1 - IoU of the true positives, (S,); NaN without any.
        false_positive: 1 - precision, (S,).
        false_negative: 1 - recall, (S,).
    """

    thresholds: np.ndarray
    lrp: np.ndarray
    localization: np.ndarray
    false_positive: np.ndarray
    false_negative: np.ndarray

    @classmethod
    def of(
        cls, scores: np.ndarray, ious: np.ndarray, num_objects: int, *, tau: float = TAU
    ) -> "LRPCurve":
        """Evaluate all distinct scores as thresholds.

        Args:
            scores: scores of the detections, (D,).
            ious: IoU with the matched object, (D,), at least `tau`; 0 for a false positive.
            num_objects: number of objects to be found, at least 1.
            tau: IoU from which detections were matched.

        Complexity:
            O(D log D).
        """
        order = np.argsort(-scores, kind="stable")
        scores, ious = scores[order], ious[order]
        last = _ends_of_ties(scores)
        tp = (ious > 0).cumsum()[last]
        error = np.where(ious > 0, 1 - ious, 0.0).cumsum()[last]
        passed = np.flatnonzero(last) + 1
        fp = passed - tp
        with np.errstate(invalid="ignore"):
            return cls(
                thresholds=scores[last],
                lrp=(error / (1 - tau) + fp + num_objects - tp) / (fp + num_objects),
                localization=error / tp,
                false_positive=fp / passed,
                false_negative=1 - tp / num_objects,
            )


@dataclass(frozen=True)
class OptimalLRP:
    """oLRP per class, its parts, and the best threshold.

    A class without objects is NaN throughout. A class with no object found has an oLRP and a
    `false_negative` of 1 and NaN elsewhere: there is no best threshold.

    Attributes:
        olrp: oLRP, (K,).
        localization: mean 1 - IoU of the true positives at the best threshold, (K,).
        false_positive: 1 - precision there, (K,).
        false_negative: 1 - recall there, (K,).
        thresholds: best score thresholds, (K,).
    """

    olrp: np.ndarray
    localization: np.ndarray
    false_positive: np.ndarray
    false_negative: np.ndarray
    thresholds: np.ndarray

    @classmethod
    def of(cls, matches: Matches, *, tau: float = TAU) -> "OptimalLRP":
        """Minimize LRP over the score thresholds, class by class.

        Args:
            matches: matches at the IoU `tau`.
            tau: IoU from which detections were matched.
        """
        best = np.full((len(matches.num_objects), 5), np.nan)
        best[matches.num_objects > 0] = 1, np.nan, np.nan, 1, np.nan
        for label, curve in lrp_curves(matches, tau=tau).items():
            if not np.isnan(curve.localization).all():
                at = np.argmin(np.where(np.isnan(curve.localization), np.inf, curve.lrp))
                parts = (curve.localization, curve.false_positive, curve.false_negative)
                best[label] = [v[at] for v in (curve.lrp, *parts, curve.thresholds)]
        return cls(*best.T)

    def mean(self) -> "OptimalLRP":
        """Return the means over the classes that have a value, as for AP; every field is 0-d."""
        return OptimalLRP(*(_mean(getattr(self, field.name)) for field in fields(self)))

    def rows(self) -> np.ndarray:
        """Return oLRP, localization, false positives, false negatives and threshold, (K, 5)."""
        return np.stack([getattr(self, field.name) for field in fields(self)], axis=-1)


def lrp_curves(matches: Matches, *, tau: float = TAU) -> dict[int, LRPCurve]:
    """Return label -> curve for the classes with objects and detections.

    Args:
        matches: matches at the IoU `tau`.
        tau: IoU from which detections were matched.
    """
    order = np.argsort(matches.labels, kind="stable")
    labels = np.arange(len(matches.num_objects))
    bounds = np.searchsorted(matches.labels[order], [labels, labels + 1])
    curves = {}
    for label, (start, stop) in enumerate(bounds.T.tolist()):
        if stop > start and matches.num_objects[label]:
            own = matches.subset(order[start:stop])
            curves[label] = LRPCurve.of(own.scores, own.ious, own.num_objects[label], tau=tau)
    return curves


def mean_lrp_curve(matches: Matches, *, tau: float = TAU) -> tuple[np.ndarray, np.ndarray]:
    """Return decreasing thresholds and LRP averaged over the classes with objects, both (S,).

    A class has an LRP of 1 above its highest score.

    Args:
        matches: matches at the IoU `tau`.
        tau: IoU from which detections were matched.
    """
    curves = lrp_curves(matches, tau=tau).values()
    num_classes = np.count_nonzero(matches.num_objects)
    thresholds = np.concatenate([np.zeros(0), *(curve.thresholds for curve in curves)])
    steps = np.concatenate([np.zeros(0), *(np.diff(c.lrp, prepend=1.0) for c in curves)])
    order = np.argsort(-thresholds, kind="stable")
    thresholds = thresholds[order]
    last = _ends_of_ties(thresholds)
    return thresholds[last], (1 + steps[order].cumsum() / max(num_classes, 1))[last]


def best_lrp_threshold(matches: Matches, *, tau: float = TAU) -> float:
    """Return the common score threshold with the lowest mean LRP; NaN if no object is found."""
    if not matches.correct.any():
        return float("nan")
    thresholds, lrp = mean_lrp_curve(matches, tau=tau)
    return float(thresholds[np.argmin(lrp)])


def f1_curve(matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """Return decreasing thresholds and the F1 of all classes together, 0..1, both (S,)."""
    order = np.argsort(-matches.scores, kind="stable")
    scores, passed = matches.scores[order], np.arange(1, len(order) + 1)
    f1 = 2 * matches.correct[order].cumsum() / (passed + matches.num_objects.sum())
    last = _ends_of_ties(scores)
    return scores[last], f1[last]


def best_f1_threshold(matches: Matches) -> float:
    """Return the score threshold with the best F1 of all classes together; NaN if none is found."""
    if not matches.correct.any():
        return float("nan")
    thresholds, f1 = f1_curve(matches)
    return float(thresholds[np.argmax(f1)])


def lrp_metrics(matches: Matches, class_names: Sequence[str] | None) -> dict[str, float]:
    """Return oLRP and its parts in percent, and the best common threshold.

    Args:
        matches: matches at IoU 0.5.
        class_names: names of the classes, for `oLRP-<name>`; as in detectron2 these are left out
            if there is one class, or None.

    Returns:
        `oLRP`, `oLRP_Loc`, `oLRP_FP`, `oLRP_FN` and `oLRP-<name>`, all 0..100 and NaN where
        undefined; `score_threshold`, 0..1.
    """
    best = OptimalLRP.of(matches)
    metrics = dict(zip(LRP_METRICS, (100 * best.mean().rows()).tolist(), strict=False))
    metrics["score_threshold"] = best_lrp_threshold(matches)
    if class_names is not None and len(class_names) > 1:
        for name, value in zip(class_names, best.olrp.tolist(), strict=True):
            metrics[f"oLRP-{name}"] = 100 * value
    return metrics


def lrp_table(
    best: OptimalLRP,
    class_names: Sequence[str],
    *,
    columns: Mapping[str, np.ndarray] | None = None,
    num_objects: np.ndarray | None = None,
) -> str:
    """Return a table with a row per class and one for their mean.

    Args:
        best: oLRP per class, 0..1.
        class_names: names of the classes, K of them.
        columns: title -> percent per class, (K,), of the columns before oLRP.
        num_objects: number of objects of each class, (K,), a column by which the rows are sorted,
            the rarest class first; None for the order of the classes.
    """
    rows = np.column_stack([best.rows()[:, :4] * 100, best.thresholds])
    headers = ["class", "oLRP", "Loc", "FP", "FN", "best score"]
    if columns:
        rows = np.column_stack([*columns.values(), rows])
        headers[1:1] = columns
    rows = np.vstack([rows, [_mean(column) for column in rows.T]])
    rows[-1, -1] = np.nan  # a mean of thresholds has no use
    formats = [".2f"] * (rows.shape[1] - 1) + [".4f"]
    cells = [
        [
            printable(name, length=20 if num_objects is None else 16),
            *("-" if np.isnan(v) else format(v, f) for v, f in zip(row, formats, strict=True)),
        ]
        for name, row in zip([*class_names, "mean"], rows, strict=True)
    ]
    if num_objects is not None:
        headers.insert(1, "objects")
        for row, count in zip(cells, [*num_objects.tolist(), "-"], strict=True):
            row.insert(1, str(count))
        cells = [cells[i] for i in (*np.argsort(num_objects, kind="stable"), -1)]
    align = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(cells, headers=headers, disable_numparse=True, colalign=align)


def _mean(values: np.ndarray) -> np.ndarray:
    values = values[~np.isnan(values)]
    return values.mean() if len(values) else np.array(np.nan)


def _ends_of_ties(scores: np.ndarray) -> np.ndarray:
    """Return whether each sorted score is the last of its value: equal scores pass together."""
    return np.append(np.diff(scores) != 0, np.ones(min(1, len(scores)), bool))
