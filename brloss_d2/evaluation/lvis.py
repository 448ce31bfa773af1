"""LVIS v1: federated box and mask AP and oLRP, AP also of rare, common, frequent categories."""

import logging
import math
from typing import Any

from detectron2 import evaluation
from detectron2.evaluation import lvis_evaluation
from detectron2.utils.logger import create_small_table

from brloss_d2.evaluation.lrp import lrp_metrics
from brloss_d2.evaluation.matches import match_detections, unmatched
from brloss_d2.evaluation.protocols import (
    AP_METRICS,
    evaluate_detections,
    renumber_annotations,
    warn_of_nothing,
)
from brloss_d2.evaluation.replace import replaced

logger = logging.getLogger(__name__)

LVIS_METRICS = (*AP_METRICS, "APr", "APc", "APf")


class LVISEvaluator(evaluation.LVISEvaluator):
    """detectron2's evaluator, computed by hotcoco if it is installed, with oLRP.

    The log says which package evaluated. A metric without any ground truth is NaN.

    Args:
        dataset_name: name of a dataset whose metadata have `json_file`, in LVIS format.
        *args: arguments of detectron2's `LVISEvaluator`.
        use_fast_impl: whether hotcoco may evaluate; False insists on the `lvis` package.
        **keywords: arguments of detectron2's `LVISEvaluator`; `max_dets_per_image` is 300 by
            default.
    """

    def __init__(self, dataset_name: str, *args: Any, use_fast_impl: bool = True, **keywords: Any):
        super().__init__(dataset_name, *args, **keywords)
        self._official = not use_fast_impl
        renumber_annotations(self._lvis_api)

    def evaluate(self) -> dict[str, Any] | None:
        """Return task -> metric -> percent in the main process; None elsewhere."""
        with replaced(lvis_evaluation, _evaluate_predictions_on_lvis=self._evaluate_task):
            return super().evaluate()

    def _evaluate_task(
        self,
        lvis_gt: Any,
        lvis_results: list[dict[str, Any]],
        iou_type: str,
        max_dets_per_image: int | None = None,
        class_names: list[str] | None = None,
    ) -> dict[str, float]:
        """Stand in for detectron2's function and return metric -> percent for one task."""
        if not lvis_results:
            warn_of_nothing(iou_type)
            nothing = unmatched(lvis_gt.anns.values(), lvis_gt.get_cat_ids())
            return {**dict.fromkeys(LVIS_METRICS, math.nan), **lrp_metrics(nothing, None)}
        found = evaluate_detections(
            lvis_gt,
            lvis_results,
            iou_type,
            limits=[max_dets_per_image or 300],
            lvis=True,
            official=self._official,
        )
        # The packages say -1 for what cannot be computed.
        values = {name: found.metrics[name] for name in LVIS_METRICS}
        results = {n: float(v) * 100 if v >= 0 else math.nan for n, v in values.items()}
        logger.debug(
            "%s\nResults for %s:\n%s", found.summary, iou_type, create_small_table(results)
        )
        return {**results, **lrp_metrics(match_detections(found), None)}
