"""COCO-style box and mask AP and oLRP."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2 import evaluation
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import coco_evaluation

from brloss_d2.evaluation.lrp import OptimalLRP, lrp_metrics, lrp_table
from brloss_d2.evaluation.matches import match_detections, unmatched
from brloss_d2.evaluation.protocols import (
    evaluate_detections,
    read_ground_truth,
    renumber_annotations,
)
from brloss_d2.evaluation.replace import replaced

logger = logging.getLogger(__name__)

_detectron2_evaluation = coco_evaluation._evaluate_predictions_on_coco


class COCOEvaluator(evaluation.COCOEvaluator):
    """detectron2's evaluator, computed by hotcoco if it is installed, with oLRP.

    The log says which package evaluated. Keypoints are left to detectron2.

    Args:
        dataset_name: name of a dataset whose metadata have `json_file`, in COCO format.
        *args: arguments of detectron2's `COCOEvaluator`.
        use_fast_impl: whether hotcoco may evaluate; False insists on pycocotools.
        **keywords: arguments of detectron2's `COCOEvaluator`; `max_dets_per_image` is 100 by
            default.
    """

    def __init__(self, dataset_name: str, *args: Any, use_fast_impl: bool = True, **keywords: Any):
        self._official = not use_fast_impl
        if dataset_name in DatasetCatalog:  # detectron2 loads it for training, too
            super().__init__(dataset_name, *args, use_fast_impl=False, **keywords)
            renumber_annotations(self._coco_api)
            return
        metadata = MetadataCatalog.get(dataset_name)
        tasks = args[0] if args else keywords.get("tasks")
        masks = bool(tasks and "segm" in tasks) or metadata.get("masks")
        truth = read_ground_truth(metadata.json_file, masks=masks)
        with replaced(coco_evaluation, COCO=lambda json_file: truth):
            super().__init__(dataset_name, *args, use_fast_impl=False, **keywords)

    def evaluate(self, img_ids: list[int] | None = None) -> dict[str, Any]:
        """Return task -> metric -> percent in the main process; empty elsewhere.

        Args:
            img_ids: ids of the images to evaluate; all of them by default.
        """
        with replaced(coco_evaluation, _evaluate_predictions_on_coco=self._evaluate_task):
            return super().evaluate(img_ids)

    def _evaluate_task(
        self, coco_gt: Any, coco_results: list[dict[str, Any]], iou_type: str, **options: Any
    ) -> Any:
        """Stand in for detectron2's function, which makes a `COCOeval`, for one task."""
        if iou_type == "keypoints":
            return _detectron2_evaluation(coco_gt, coco_results, iou_type, **options)
        found = evaluate_detections(
            coco_gt,
            coco_results,
            iou_type,
            limits=options["max_dets_per_image"],
            image_ids=options["img_ids"],
            official=self._official,
        )
        logger.debug("%s", found.summary)
        return found

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict[str, float]:
        """Add the metrics of `lrp_metrics` to AP; detectron2 calls this per task."""
        results = super()._derive_coco_results(coco_eval, iou_type, class_names)
        if iou_type == "keypoints":
            return results
        if coco_eval is None:
            truth = self._coco_api
            matches = unmatched(truth.anns.values(), truth.getCatIds())
            return {**results, **lrp_metrics(matches, None)}
        matches = match_detections(coco_eval)
        if class_names is not None and len(class_names) > 1:
            ap = np.array([results[f"AP-{name}"] for name in class_names])
            table = lrp_table(OptimalLRP.of(matches), class_names, columns={"AP": ap})
            logger.info("Classes, %s, percent:\n%s", iou_type, table)
        return {**results, **lrp_metrics(matches, class_names)}
