"""RoI heads, registered in detectron2's registry."""

from .box_predictor import CriterionBoxPredictor
from .standard import CriterionROIHeads

__all__ = ["CriterionBoxPredictor", "CriterionROIHeads"]
