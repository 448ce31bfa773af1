"""oLRP as metrics and tables of an evaluation."""

from collections.abc import Sequence

import numpy as np
from tabulate import tabulate

from brloss_d2.evaluation.lrp import OptimalLRP, best_lrp_threshold
from brloss_d2.evaluation.matches import Matches

_PERCENT = 100.0


def lrp_metrics(matches: Matches, class_names: Sequence[str] | None) -> dict[str, float]:
    """Return oLRP and its parts in percent, and the threshold that suits all classes best.

    Args:
        matches: at the IoU of oLRP, 0.5.
        class_names: of each label, for `oLRP-<name>`; left out, as in detectron2, where there is
            one class or none has a name.

    Returns:
        `oLRP`, `oLRP_Loc`, `oLRP_FP`, `oLRP_FN` and `oLRP-<name>`, all 0..100 and NaN where
        undefined; `score_threshold`, 0..1.
    """
    best = OptimalLRP.of(matches)
    mean = best.mean()
    metrics = {
        "oLRP": mean.olrp,
        "oLRP_Loc": mean.localization,
        "oLRP_FP": mean.false_positive,
        "oLRP_FN": mean.false_negative,
    }
    metrics = {key: float(value) * _PERCENT for key, value in metrics.items()}
    metrics["score_threshold"] = best_lrp_threshold(matches)
    if class_names is not None and len(class_names) > 1:
        for name, value in zip(class_names, best.olrp, strict=True):
            metrics[f"oLRP-{name}"] = float(value) * _PERCENT
    return metrics


def lrp_table(best: OptimalLRP, class_names: Sequence[str], *, ap: np.ndarray | None = None) -> str:
    """Return a table with a row for each class and one for their mean.

    Args:
        best: 0..1.
        class_names: (K,).
        ap: (K,), percent; a column more.
    """
    rows = np.column_stack([best.rows()[:, :4] * _PERCENT, best.thresholds])
    headers = ["class", "oLRP", "oLRP_Loc", "oLRP_FP", "oLRP_FN", "best score"]
    if ap is not None:
        rows = np.column_stack([ap, rows])
        headers.insert(1, "AP")
    rows = np.vstack([rows, [_mean(column) for column in rows.T]])
    rows[-1, -1] = np.nan  # nobody uses the mean of thresholds
    formats = [".2f"] * (rows.shape[1] - 1) + [".4f"]
    cells = [
        [name, *("-" if np.isnan(v) else format(v, f) for v, f in zip(row, formats, strict=True))]
        for name, row in zip([*class_names, "mean"], rows, strict=True)
    ]
    align = ["left", *["right"] * len(formats)]
    return tabulate(cells, headers=headers, disable_numparse=True, colalign=align)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
