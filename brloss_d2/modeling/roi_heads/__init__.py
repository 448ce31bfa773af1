"""RoI heads, registered in detectron2's registry."""

from brloss_d2.modeling.roi_heads.box_predictor import CriterionBoxPredictor
from brloss_d2.modeling.roi_heads.cascade import CriterionCascadeROIHeads
from brloss_d2.modeling.roi_heads.mask_head import CriterionMaskHead
from brloss_d2.modeling.roi_heads.standard import CriterionROIHeads

__all__ = [
    "CriterionBoxPredictor",
    "CriterionCascadeROIHeads",
    "CriterionMaskHead",
    "CriterionROIHeads",
]
