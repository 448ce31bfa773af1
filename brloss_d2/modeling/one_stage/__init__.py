"""One-stage detectors: RetinaNet, ATSS, PAA and FoveaBox are configurations of one class."""

from brloss_d2.modeling.one_stage.anchors import FittedAnchorGenerator, RatioMajorAnchorGenerator
from brloss_d2.modeling.one_stage.assigners import (
    ATSSAssigner,
    FoveaAssigner,
    MaxIoUAssigner,
    PAAAssigner,
    TaskAlignedAssigner,
)
from brloss_d2.modeling.one_stage.box_coding import DeltaTransform, LogDistanceTransform
from brloss_d2.modeling.one_stage.detector import OneStageDetector
from brloss_d2.modeling.one_stage.head import Scale, TowerHead
from brloss_d2.modeling.one_stage.matching import DenseMatch, DenseMatcher
from brloss_d2.modeling.one_stage.postprocessing import (
    DensePostprocessor,
    ScoreVoting,
    TopAnchors,
    TopPairs,
)
from brloss_d2.modeling.one_stage.suppression import FastNMSPostprocessor, fast_nms
from brloss_d2.modeling.one_stage.warmup import WarmupAssigner, WarmupCriterion

__all__ = [
    "ATSSAssigner",
    "DeltaTransform",
    "DenseMatch",
    "DenseMatcher",
    "DensePostprocessor",
    "FastNMSPostprocessor",
    "FittedAnchorGenerator",
    "FoveaAssigner",
    "LogDistanceTransform",
    "MaxIoUAssigner",
    "OneStageDetector",
    "PAAAssigner",
    "RatioMajorAnchorGenerator",
    "Scale",
    "ScoreVoting",
    "TaskAlignedAssigner",
    "TopAnchors",
    "TopPairs",
    "TowerHead",
    "WarmupAssigner",
    "WarmupCriterion",
    "fast_nms",
]
