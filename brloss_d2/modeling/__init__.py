"""Detectors on detectron2. Importing this package registers all of its parts there."""

from brloss_d2.modeling.backbone import P6P7, DeformableBottleneckBlock, FixedStatsBatchNorm2d
from brloss_d2.modeling.config import add_brloss_config
from brloss_d2.modeling.dense_heads import (
    DeltaTransform,
    LogDistanceTransform,
    RatioMajorAnchorGenerator,
    TowerHead,
)
from brloss_d2.modeling.label_assignment import (
    ATSSAssigner,
    FoveaAssigner,
    MaxIoUAssigner,
    MaxIoUMatcher,
    PAAAssigner,
)
from brloss_d2.modeling.meta_arch import OneStageDetector
from brloss_d2.modeling.postprocessing import (
    DensePostprocessor,
    ScoreVoting,
    TopAnchors,
    TopPairs,
)
from brloss_d2.modeling.proposal_generator import CriterionRPN
from brloss_d2.modeling.roi_heads import (
    CriterionBoxPredictor,
    CriterionCascadeROIHeads,
    CriterionMaskHead,
    CriterionROIHeads,
)

__all__ = [
    "P6P7",
    "ATSSAssigner",
    "CriterionBoxPredictor",
    "CriterionCascadeROIHeads",
    "CriterionMaskHead",
    "CriterionROIHeads",
    "CriterionRPN",
    "DeformableBottleneckBlock",
    "DeltaTransform",
    "DensePostprocessor",
    "FixedStatsBatchNorm2d",
    "FoveaAssigner",
    "LogDistanceTransform",
    "MaxIoUAssigner",
    "MaxIoUMatcher",
    "OneStageDetector",
    "PAAAssigner",
    "RatioMajorAnchorGenerator",
    "ScoreVoting",
    "TopAnchors",
    "TopPairs",
    "TowerHead",
    "add_brloss_config",
]
