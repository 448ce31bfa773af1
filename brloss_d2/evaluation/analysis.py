"""Everything that saved detections say: AP, oLRP, precision-recall curves, matches."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.evaluation import coco_evaluation
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from brloss_d2.errors import InputError
from brloss_d2.evaluation.implementation import COCOeval_faster, has_faster
from brloss_d2.evaluation.lrp import OptimalLRP
from brloss_d2.evaluation.matches import Matches, match_detections

TASKS = ("bbox", "segm")
_AREAS = {"s": "small", "m": "medium", "l": "large"}


@dataclass(frozen=True)
class Analysis:
    """An evaluation in the COCO protocol, in percent where detectron2's results are.

    Attributes:
        task: `bbox` or `segm`.
        class_names: (K,).
        metrics: AP, AP50, AP75, APs, APm, APl, oLRP and its parts, oLRPs, oLRPm, oLRPl: 0..100,
            NaN where undefined.
        class_ap: (K,), 0..100.
        lrp: oLRP of each class, 0..1.
        recalls: (101,), at which precision is taken.
        precisions: (T, 101, K), interpolated as AP does; NaN for a class without objects.
        iou_thresholds: (T,).
        matches: at IoU 0.5, objects of all sizes.
        num_images: of the data set.
    """

    task: str
    class_names: Sequence[str]
    metrics: Mapping[str, float]
    class_ap: np.ndarray
    lrp: OptimalLRP
    recalls: np.ndarray
    precisions: np.ndarray
    iou_thresholds: np.ndarray
    matches: Matches
    num_images: int


def analyze(
    json_file: str,
    results: Sequence[Mapping[str, Any]],
    class_names: Mapping[int, str],
    *,
    task: str = "bbox",
    max_dets_per_image: int = 100,
) -> Analysis:
    """Evaluate saved detections.

    Args:
        json_file: ground truth in COCO format.
        results: detections in COCO format.
        class_names: category id of the JSON -> name.
        task: `bbox`, or `segm` if the detections have masks.
        max_dets_per_image: in an image and class, as the evaluator of the run has it.

    Raises:
        InputError: there are no detections, or no masks.
    """
    evaluation = _evaluate(json_file, results, task, max_dets_per_image)
    names = [class_names[int(id_)] for id_ in evaluation.params.catIds]
    precisions = evaluation.eval["precision"][:, :, :, 0, -1].astype(float)
    precisions[precisions < 0] = np.nan
    matches = match_detections(evaluation)
    lrp = OptimalLRP.of(matches)
    ap = [float(v) * 100 if v >= 0 else float("nan") for v in evaluation.stats[:6]]
    return Analysis(
        task=task,
        class_names=names,
        metrics={
            **dict(zip(("AP", "AP50", "AP75", "APs", "APm", "APl"), ap, strict=True)),
            **_lrp_by_size(evaluation, lrp.mean()),
        },
        class_ap=precisions.mean(axis=(0, 1)) * 100,
        lrp=lrp,
        recalls=np.asarray(evaluation.params.recThrs),
        precisions=precisions,
        iou_thresholds=np.asarray(evaluation.params.iouThrs),
        matches=matches,
        num_images=len(evaluation.params.imgIds),
    )


def _evaluate(
    json_file: str, results: Sequence[Mapping[str, Any]], task: str, limit: int
) -> COCOeval:
    if task not in TASKS:
        raise InputError(f"The task is {task!r}: expected one of {', '.join(TASKS)}.")
    if not results:
        raise InputError("The run has no detections: there is nothing to analyze.")
    if task == "segm" and not all("segmentation" in result for result in results):
        raise InputError("The detections have no masks: there is nothing to say of segm.")
    with contextlib.redirect_stdout(io.StringIO()):
        # detectron2's, which its evaluator calls: the numbers are those of the run's log.
        return coco_evaluation._evaluate_predictions_on_coco(
            COCO(json_file),
            [dict(result) for result in results],
            task,
            cocoeval_fn=COCOeval_faster if has_faster() else COCOeval,
            max_dets_per_image=[1, 10, limit],
        )


def _lrp_by_size(evaluation: COCOeval, mean: OptimalLRP) -> dict[str, float]:
    metrics = {
        "oLRP": mean.olrp,
        "oLRP_Loc": mean.localization,
        "oLRP_FP": mean.false_positive,
        "oLRP_FN": mean.false_negative,
    }
    for suffix, label in _AREAS.items():
        area_range = evaluation.params.areaRng[evaluation.params.areaRngLbl.index(label)]
        matches = match_detections(evaluation, area_range=tuple(area_range))
        metrics[f"oLRP{suffix}"] = OptimalLRP.of(matches).mean().olrp
    return {key: float(value) * 100 for key, value in metrics.items()}
