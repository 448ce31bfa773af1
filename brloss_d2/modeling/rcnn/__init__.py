"""Faster, Cascade and Mask R-CNN: RPN, RoI heads and predictors, registered in detectron2."""

from brloss_d2.modeling.rcnn.box_predictor import CriterionBoxPredictor
from brloss_d2.modeling.rcnn.cascade import CriterionCascadeROIHeads
from brloss_d2.modeling.rcnn.mask_head import CriterionMaskHead
from brloss_d2.modeling.rcnn.roi_heads import CriterionROIHeads
from brloss_d2.modeling.rcnn.rpn import CriterionRPN

__all__ = [
    "CriterionBoxPredictor",
    "CriterionCascadeROIHeads",
    "CriterionMaskHead",
    "CriterionROIHeads",
    "CriterionRPN",
]
