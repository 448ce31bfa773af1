"""Analysis of saved detections: AP, oLRP, precision-recall curves, F-scores, kinds of errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brloss_d2.errors import InputError, NothingToAnalyzeError
from brloss_d2.evaluation.lrp import OptimalLRP, best_lrp_threshold, lrp_metrics
from brloss_d2.evaluation.matches import Matches, match_detections
from brloss_d2.evaluation.protocols import (
    AP_METRICS,
    Evaluation,
    evaluate_detections,
    read_ground_truth,
)

TASKS = ("bbox", "segm")
KINDS = {
    "Cls": "place right, class wrong",
    "Loc": "class right, IoU 0.1 to 0.5",
    "Both": "class wrong, IoU 0.1 to 0.5",
    "Dupe": "object found already",
    "Bkg": "no object there",
    "Miss": "object not found",
}
_AREAS = {"s": "small", "m": "medium", "l": "large"}


@dataclass(frozen=True)
class ErrorKinds:
    """Errors by kind, and classes taken for each other, as hotcoco counts them at IoU 0.5.

    The kinds are those of Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection
    Errors", ECCV 2020: the keys of `KINDS`.

    Attributes:
        counts: kind -> number of errors, over all scores.
        ap_loss: kind -> AP50 that is lost to it, 0..100; also `FP` and `FN`, all false positives
            and all missed objects.
        confusion: objects by true class (rows) and predicted class (columns), (K+1, K+1); the last
            column holds missed objects, the last row detections without an object.
        score_threshold: lowest score of the detections in `confusion`, 0..1.
    """

    counts: Mapping[str, int]
    ap_loss: Mapping[str, float]
    confusion: np.ndarray
    score_threshold: float

    @property
    def shares(self) -> np.ndarray:
        """`confusion` in percent of its rows, (K+1, K+1)."""
        return 100 * self.confusion / self.confusion.sum(axis=1, keepdims=True).clip(min=1)

    def most_confused(self, count: int) -> list[tuple[int, int]]:
        """Return the pairs of true class and other class with the most confusions, if any.

        Args:
            count: largest number of pairs.
        """
        between = self.confusion[:-1, :-1] * ~np.eye(len(self.confusion) - 1, dtype=bool)
        order = np.argsort(-between, axis=None, kind="stable")[:count]
        pairs = np.column_stack(np.unravel_index(order, between.shape)).tolist()
        return [(true, other) for true, other in pairs if between[true, other]]

    @classmethod
    def of(cls, evaluation: Evaluation, score_threshold: float) -> "ErrorKinds | None":
        """Count the errors of an evaluation; None if hotcoco did not evaluate.

        Args:
            evaluation: result of `evaluate_detections`.
            score_threshold: lowest score of the detections in the confusion matrix, 0..1.
        """
        if evaluation.package != "hotcoco":
            return None
        tide = evaluation.computed.tide_errors()
        confusion = evaluation.computed.confusion_matrix(min_score=score_threshold)
        return cls(
            counts={kind: tide["counts"][kind] for kind in KINDS},
            ap_loss={kind: 100 * value for kind, value in tide["delta_ap"].items()},
            confusion=np.asarray(confusion["matrix"]).astype(int),
            score_threshold=score_threshold,
        )


@dataclass(frozen=True)
class Analysis:
    """Analysis of an evaluated dataset, in percent where detectron2's results are.

    Attributes:
        task: `bbox` or `segm`.
        class_names: names of the classes, K of them.
        metrics: AP, AP50, AP75, APs, APm, APl, oLRP and its parts, oLRPs, oLRPm, oLRPl: 0..100,
            NaN if undefined.
        class_ap: AP per class, (K,), 0..100.
        class_f1: best F1 per class at IoU 0.5 over the points of its precision-recall curve, (K,),
            0..100.
        lrp: oLRP per class, 0..1.
        recalls: recalls at which precision is sampled, (101,), 0..1.
        precisions: interpolated precision, (T, 101, K), 0..1; NaN for a class without objects.
        iou_thresholds: IoU thresholds, (T,).
        matches: matches at IoU 0.5 with objects of all sizes.
        num_images: number of images of the dataset.
        errors: errors by kind; None without hotcoco.
    """

    task: str
    class_names: Sequence[str]
    metrics: Mapping[str, float]
    class_ap: np.ndarray
    class_f1: np.ndarray
    lrp: OptimalLRP
    recalls: np.ndarray
    precisions: np.ndarray
    iou_thresholds: np.ndarray
    matches: Matches
    num_images: int
    errors: ErrorKinds | None = None


def analyze(
    json_file: str,
    results: Sequence[dict[str, Any]],
    class_names: Mapping[int, str],
    *,
    task: str = "bbox",
    max_dets_per_image: int = 100,
) -> Analysis:
    """Evaluate and analyze saved detections.

    Args:
        json_file: path of the ground truth in COCO format.
        results: detections in COCO format.
        class_names: category id of the JSON -> name.
        task: `bbox`, or `segm` if the detections have masks.
        max_dets_per_image: number of detections that count per image and class; that of the
            evaluator of the run gives the numbers of its log.

    Raises:
        InputError: there are no detections, or no masks.
    """
    if task not in TASKS:
        raise InputError(f"The task is {task!r}: expected one of {', '.join(TASKS)}.")
    if not results:
        raise NothingToAnalyzeError("The run has no detections: there is nothing to analyze.")
    if task == "segm" and not all("segmentation" in result for result in results):
        raise InputError("The detections have no masks: there is nothing to analyze for segm.")
    truth = read_ground_truth(json_file, masks=task == "segm")
    evaluation = evaluate_detections(truth, results, task, limits=[1, 10, max_dets_per_image])
    params = evaluation.computed.params
    precisions = evaluation.eval["precision"][:, :, :, 0, -1].astype(float)
    precisions[precisions < 0] = np.nan
    recalls, iou_thresholds = np.asarray(params.recThrs), np.asarray(params.iouThrs)
    at_half = precisions[np.argmin(np.abs(iou_thresholds - 0.5))]
    # No detection and no recall give 0 / 0, and no F1.
    f1 = 2 * at_half * recalls[:, None] / np.maximum(at_half + recalls[:, None], 1e-12)
    matches = match_detections(evaluation)
    ap = [float(v) * 100 if v >= 0 else float("nan") for v in evaluation.stats[:6]]
    metrics = dict(zip(AP_METRICS, ap, strict=True))
    overall = lrp_metrics(matches, None)
    metrics.update({key: value for key, value in overall.items() if key != "score_threshold"})
    for suffix, area in _AREAS.items():
        mean = OptimalLRP.of(match_detections(evaluation, area=area)).mean()
        metrics[f"oLRP{suffix}"] = 100 * float(mean.olrp)
    threshold = best_lrp_threshold(matches)
    return Analysis(
        task=task,
        class_names=[class_names[id_] for id_ in evaluation.class_ids],
        metrics=metrics,
        class_ap=precisions.mean(axis=(0, 1)) * 100,
        class_f1=f1.max(axis=0) * 100,
        lrp=OptimalLRP.of(matches),
        recalls=recalls,
        precisions=precisions,
        iou_thresholds=iou_thresholds,
        matches=matches,
        num_images=len(evaluation.image_ids),
        errors=None if np.isnan(threshold) else ErrorKinds.of(evaluation, threshold),
    )
