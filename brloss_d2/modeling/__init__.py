"""Detectors on detectron2. Importing this package registers all of its parts there."""

from brloss_d2.modeling.backbone import (
    P6P7,
    CarafeFPN,
    DeformableBottleneckBlock,
    FixedStatsBatchNorm2d,
)
from brloss_d2.modeling.instance import (
    GridAssigner,
    GridHead,
    GridPostprocessor,
    MaskFeatureHead,
    MatrixNMS,
    SOLOv2,
)
from brloss_d2.modeling.matching import MaxIoUMatcher
from brloss_d2.modeling.one_stage import (
    ATSSAssigner,
    DeltaTransform,
    DensePostprocessor,
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
    "ATSSAssigner",
    "CarafeFPN",
    "CriterionBoxPredictor",
    "CriterionCascadeROIHeads",
    "CriterionMaskHead",
    "CriterionROIHeads",
    "CriterionRPN",
    "DeformableBottleneckBlock",
    "DeltaTransform",
    "DensePostprocessor",
    "DetectorWithTTA",
    "FixedStatsBatchNorm2d",
    "FoveaAssigner",
    "GridAssigner",
    "GridHead",
    "GridPostprocessor",
    "LogDistanceTransform",
    "MaskFeatureHead",
    "MatrixNMS",
    "MaxIoUAssigner",
    "MaxIoUMatcher",
    "OneStageDetector",
    "PAAAssigner",
    "RatioMajorAnchorGenerator",
    "SOLOv2",
    "ScoreVoting",
    "TaskAlignedAssigner",
    "TopAnchors",
    "TopPairs",
    "TowerHead",
    "WarmupAssigner",
    "WarmupCriterion",
    "add_brloss_config",
]
