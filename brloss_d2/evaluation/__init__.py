"""Evaluation of detectors: COCO, LVIS and Cityscapes, oLRP, score thresholds, calibration."""

from brloss_d2.evaluation.analysis import Analysis, ErrorKinds, analyze
from brloss_d2.evaluation.calibration import (
    Calibration,
    calibrated,
    fit_calibration,
    load_calibration,
    save_calibration,
    suggest_thresholds,
)
from brloss_d2.evaluation.cityscapes import CityscapesEvaluator
from brloss_d2.evaluation.coco import COCOEvaluator
from brloss_d2.evaluation.lrp import OptimalLRP, mean_lrp_curve
from brloss_d2.evaluation.lvis import LVISEvaluator
from brloss_d2.evaluation.matches import Matches, match_detections
from brloss_d2.evaluation.protocols import Evaluation, evaluate_detections
from brloss_d2.evaluation.submission import write_submission

__all__ = [
    "Analysis",
    "COCOEvaluator",
    "Calibration",
    "CityscapesEvaluator",
    "ErrorKinds",
    "Evaluation",
    "LVISEvaluator",
    "Matches",
    "OptimalLRP",
    "analyze",
    "calibrated",
    "evaluate_detections",
    "fit_calibration",
    "load_calibration",
    "match_detections",
    "mean_lrp_curve",
    "save_calibration",
    "suggest_thresholds",
    "write_submission",
]
