"""Detectors on detectron2. Importing this package registers all of its parts there."""

from brloss_d2.modeling.backbone import DeformableBottleneckBlock, FixedStatsBatchNorm2d
from brloss_d2.modeling.config import add_brloss_config
from brloss_d2.modeling.label_assignment import MaxIoUMatcher
from brloss_d2.modeling.proposal_generator import CriterionRPN
from brloss_d2.modeling.roi_heads import (
    CriterionBoxPredictor,
    CriterionCascadeROIHeads,
    CriterionMaskHead,
    CriterionROIHeads,
)

__all__ = [
    "CriterionBoxPredictor",
    "CriterionCascadeROIHeads",
    "CriterionMaskHead",
    "CriterionROIHeads",
    "CriterionRPN",
    "DeformableBottleneckBlock",
    "FixedStatsBatchNorm2d",
    "MaxIoUMatcher",
    "add_brloss_config",
]
