"""COCO-style box and mask AP and oLRP."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from detectron2 import evaluation
from detectron2.evaluation import coco_evaluation
from detectron2.utils import comm

from brloss_d2.evaluation.implementation import COCOeval_faster, describe, has_faster
from brloss_d2.evaluation.lrp import OptimalLRP
from brloss_d2.evaluation.lrp_metrics import lrp_metrics, lrp_table
from brloss_d2.evaluation.matches import match_detections, nothing_found
from brloss_d2.evaluation.replace import replaced

logger = logging.getLogger(__name__)


class COCOEvaluator(evaluation.COCOEvaluator):
    """detectron2's evaluator, computed by faster-coco-eval where that is installed, and oLRP.

    detectron2 has a C++ implementation of its own, which most installations have not compiled and
    which serves 100 detections an image alone. The log says which implementation ran.
    """

    def __init__(self, dataset_name: str, *args: Any, use_fast_impl: bool = True, **keywords: Any):
        """
        Args:
            dataset_name: a data set whose metadata have `json_file`, in COCO format.
            *args: see detectron2's `COCOEvaluator`.
            use_fast_impl: False insists on pycocotools.
            **keywords: see detectron2's `COCOEvaluator`; `max_dets_per_image` is 100 by default.
        """
        self._faster = use_fast_impl and has_faster()
        with self._implementation():
            super().__init__(dataset_name, *args, use_fast_impl=use_fast_impl, **keywords)

    def evaluate(self, img_ids: list[int] | None = None) -> dict[str, Any]:
        """Return task -> metric -> percent in the main process; empty elsewhere.

        Args:
            img_ids: evaluate these images alone.
        """
        if comm.is_main_process():
            logger.info("COCO-style evaluation by %s", self._name())
        with self._implementation():
            return super().evaluate(img_ids)

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict[str, float]:
        """Add to AP the metrics of `lrp_metrics`; detectron2 calls this for each task."""
        results = super()._derive_coco_results(coco_eval, iou_type, class_names)
        if iou_type == "keypoints":
            return results
        if coco_eval is None:
            truth = self._coco_api
            matches = nothing_found(truth.anns.values(), truth.getCatIds())
            return {**results, **lrp_metrics(matches, None)}
        matches = match_detections(coco_eval)
        if class_names is not None and len(class_names) > 1:
            table = lrp_table(OptimalLRP.of(matches), class_names)
            logger.info("Per-class %s oLRP:\n%s", iou_type, table)
        return {**results, **lrp_metrics(matches, class_names)}

    def _implementation(self) -> AbstractContextManager[None]:
        if not self._faster:
            return nullcontext()
        # The second is detectron2's for limits other than 100 detections an image.
        names = ("COCOeval_opt", "COCOevalMaxDets")
        return replaced(coco_evaluation, **dict.fromkeys(names, COCOeval_faster))

    def _name(self) -> str:
        if self._faster:
            return describe("faster-coco-eval")
        return "detectron2's C++" if self._use_fast_impl else describe("pycocotools")
