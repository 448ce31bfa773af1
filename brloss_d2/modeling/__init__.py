"""Detectors on detectron2. Importing this package registers all of its parts there."""

from .backbone import FixedStatsBatchNorm2d
from .config import add_brloss_config
from .label_assignment import MaxIoUMatcher
from .proposal_generator import CriterionRPN
from .roi_heads import CriterionBoxPredictor, CriterionROIHeads

__all__ = [
    "CriterionBoxPredictor",
    "CriterionROIHeads",
    "CriterionRPN",
    "FixedStatsBatchNorm2d",
    "MaxIoUMatcher",
    "add_brloss_config",
]
