"""Detectors on detectron2. Importing this package registers all of its parts there."""

from brloss_d2.modeling.backbone import (
    P6P7,
    BilinearFPN,
    CarafeFPN,
    DeformableBottleneckBlock,
    FixedStatsBatchNorm2d,
)
from brloss_d2.modeling.instance import (
    YOLACT,
    CoefficientHead,
    PrototypeNet,
    SemanticHead,
)
from brloss_d2.modeling.matching import MaxIoUMatcher
from brloss_d2.modeling.one_stage import (
    ATSSAssigner,
    DeltaTransform,
    DensePostprocessor,
    FastNMSPostprocessor,
    FittedAnchorGenerator,
    FoveaAssigner,
    LogDistanceTransform,
    MaxIoUAssigner,
    OneStageDetector,
    PAAAssigner,
    RatioMajorAnchorGenerator,
    ScoreVoting,
    TaskAlignedAssigner,
    TopAnchors,
    TopPairs,
    TowerHead,
    WarmupAssigner,
    WarmupCriterion,
)
from brloss_d2.modeling.rcnn import (
    CriterionBoxPredictor,
    CriterionCascadeROIHeads,
    CriterionMaskHead,
    CriterionROIHeads,
    CriterionRPN,
)
from brloss_d2.modeling.test_time_augmentation import DetectorWithTTA
from brloss_d2.modeling.yaml import add_brloss_config

__all__ = [
    "P6P7",
    "YOLACT",
    "ATSSAssigner",
    "BilinearFPN",
    "CarafeFPN",
    "CoefficientHead",
    "CriterionBoxPredictor",
    "CriterionCascadeROIHeads",
    "CriterionMaskHead",
    "CriterionROIHeads",
    "CriterionRPN",
    "DeformableBottleneckBlock",
    "DeltaTransform",
    "DensePostprocessor",
    "DetectorWithTTA",
    "FastNMSPostprocessor",
    "FittedAnchorGenerator",
    "FixedStatsBatchNorm2d",
    "FoveaAssigner",
    "LogDistanceTransform",
    "MaxIoUAssigner",
    "MaxIoUMatcher",
    "OneStageDetector",
    "PAAAssigner",
    "PrototypeNet",
    "RatioMajorAnchorGenerator",
    "ScoreVoting",
    "SemanticHead",
    "TaskAlignedAssigner",
    "TopAnchors",
    "TopPairs",
    "TowerHead",
    "WarmupAssigner",
    "WarmupCriterion",
    "add_brloss_config",
]
