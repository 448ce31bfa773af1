"""COCO-style box and mask AP and oLRP."""

import logging
from collections.abc import Sequence
from itertools import chain
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
    warn_of_nothing,
)
from brloss_d2.evaluation.replace import replaced
from brloss_d2.evaluation.submission import check_submission_name, write_submission

logger = logging.getLogger(__name__)

_detectron2_evaluation = coco_evaluation._evaluate_predictions_on_coco


class COCOEvaluator(evaluation.COCOEvaluator):
    """detectron2's evaluator, computed by hotcoco if it is installed, with oLRP.

    The log says which package evaluated. Keypoints are left to detectron2. A test set whose file
    lists images and no annotations is not evaluated; `submission` writes what its server takes.

    Args:
        dataset_name: name of a dataset whose metadata have `json_file`, in COCO format.
        *args: arguments of detectron2's `COCOEvaluator`.
        use_fast_impl: whether hotcoco may evaluate; False insists on pycocotools.
        submission: name of the detector in the files of `write_submission`, below `output_dir`;
            None writes none.
        **keywords: arguments of detectron2's `COCOEvaluator`; `max_dets_per_image` is 100 by
            default.
    """

    def __init__(
        self,
        dataset_name: str,
        *args: Any,
        use_fast_impl: bool = True,
        submission: str | None = None,
        **keywords: Any,
    ):
        self._official, self._submission = not use_fast_impl, submission
        if submission is not None:
            check_submission_name(submission)
        if dataset_name in DatasetCatalog:  # detectron2 loads it for training, too
            super().__init__(dataset_name, *args, use_fast_impl=False, **keywords)
            renumber_annotations(self._coco_api)
            return
        metadata = MetadataCatalog.get(dataset_name)
        tasks = args[0] if args else keywords.get("tasks")
        masks = bool(tasks and "segm" in tasks) or metadata.get("masks")
        truth = read_ground_truth(metadata.json_file, masks=masks, unannotated=True)
        with replaced(coco_evaluation, COCO=lambda json_file: truth):
            super().__init__(dataset_name, *args, use_fast_impl=False, **keywords)

    def evaluate(self, img_ids: list[int] | None = None) -> dict[str, Any]:
        """Return task -> metric -> percent in the main process; empty elsewhere.

        Args:
            img_ids: ids of the images to evaluate; all of them by default.
        """
        with replaced(coco_evaluation, _evaluate_predictions_on_coco=self._evaluate_task):
            return super().evaluate(img_ids)

    def _eval_predictions(
        self, predictions: list[dict[str, Any]], img_ids: list[int] | None = None
    ) -> None:
        """Evaluate and write the files for a server; detectron2 calls this in the main process."""
        super()._eval_predictions(predictions, img_ids=img_ids)  # now with the ids of the dataset
        if self._submission is None:
            if not self._do_evaluation:
                logger.warning("No annotations: test.submission=NAME writes files for a server.")
            return
        results = chain.from_iterable(prediction["instances"] for prediction in predictions)
        paths = write_submission(
            results,
            self._output_dir or ".",
            self._submission,
            json_file=self._metadata.json_file,
        )
        logger.info("For the evaluation server: %s", ", ".join(paths))

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
            warn_of_nothing(iou_type)
            truth = self._coco_api
            matches = unmatched(truth.anns.values(), truth.getCatIds())
            return {**results, **lrp_metrics(matches, None)}
        matches = match_detections(coco_eval)
        if class_names is not None and len(class_names) > 1:
            ap = np.array([results[f"AP-{name}"] for name in class_names])
            best, objects = OptimalLRP.of(matches), matches.num_objects
            table = lrp_table(best, class_names, columns={"AP": ap}, num_objects=objects)
            logger.info("Classes, %s, percent:\n%s", iou_type, table)
        return {**results, **lrp_metrics(matches, class_names)}
