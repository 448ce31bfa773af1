"""LVIS v1: federated box and mask AP and oLRP, AP also of rare, common, frequent categories."""

import logging
import math
from typing import Any

import numpy as np
from detectron2 import evaluation
from detectron2.utils import comm

from brloss_d2.evaluation.implementation import describe, has_faster
from brloss_d2.evaluation.lrp_metrics import lrp_metrics
from brloss_d2.evaluation.matches import match_lvis_detections, nothing_found
from brloss_d2.evaluation.replace import numpy_with, replaced

logger = logging.getLogger(__name__)


class LVISEvaluator(evaluation.LVISEvaluator):
    """detectron2's evaluator, computed by faster-coco-eval where that is installed, and oLRP.

    The log says which implementation ran. A metric without any ground truth is NaN.
    """

    def __init__(self, dataset_name: str, *args: Any, use_fast_impl: bool = True, **keywords: Any):
        """
        Args:
            dataset_name: a data set whose metadata have `json_file`, in LVIS format.
            *args: see detectron2's `LVISEvaluator`.
            use_fast_impl: False insists on the `lvis` package.
            **keywords: see detectron2's `LVISEvaluator`; `max_dets_per_image` is 300 by default.
        """
        super().__init__(dataset_name, *args, **keywords)
        self._faster = use_fast_impl and has_faster()

    def evaluate(self) -> dict[str, Any] | None:
        """Return task -> metric -> percent in the main process; None elsewhere."""
        import lvis
        from lvis import eval as lvis_eval

        if comm.is_main_process():
            name = describe("faster-coco-eval" if self._faster else "lvis")
            logger.info("LVIS evaluation by %s", name)
        lrp: dict[str, dict[str, float]] = {}
        # numpy 1.24 dropped the alias that the package still uses.
        with (
            replaced(lvis, LVISEval=_with_lrp(self._implementation(), lrp)),
            replaced(lvis_eval, np=numpy_with(float=np.float64)),
        ):
            results = super().evaluate()
        results = results and {task: _without_sentinels(r) for task, r in results.items()}
        for task in {"bbox", "segm"} & set(results or ()):
            results[task].update(lrp.get(task) or self._nothing_found())
        return results

    def _nothing_found(self) -> dict[str, float]:
        truth = self._lvis_api
        return lrp_metrics(nothing_found(truth.anns.values(), truth.get_cat_ids()), None)

    def _implementation(self) -> type:
        if self._faster:
            from brloss_d2.evaluation.faster_lvis import FasterLVISEval

            return FasterLVISEval
        from lvis import LVISEval

        return LVISEval


def _with_lrp(implementation: type, lrp: dict[str, dict[str, float]]) -> type:
    """Return an `LVISEval` that leaves the metrics of oLRP in `lrp`, task -> metric -> value.

    detectron2 makes the object, reads its AP, and drops it.
    """

    class LVISEvalWithLRP(implementation):  # type: ignore[misc]
        def evaluate(self) -> None:
            super().evaluate()
            lrp[self.params.iou_type] = lrp_metrics(match_lvis_detections(self), None)

    return LVISEvalWithLRP


def _without_sentinels(metrics: dict[str, float]) -> dict[str, float]:
    """The `lvis` package says -1 for what cannot be computed, and detectron2 makes it percent."""
    return {key: value if value >= 0 else math.nan for key, value in metrics.items()}
