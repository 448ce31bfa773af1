"""Mask R-CNN: the Faster R-CNN of `faster_rcnn_fpn` with a mask branch and low-quality matches.

The leaf sets the criteria, that of the masks at `model.roi_heads.mask_head.criterion`.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from omegaconf import MISSING

from brloss_d2.modeling import CriterionMaskHead

from .faster_rcnn_fpn import model

# An object takes its best proposal, if that is good enough, even from an object closer to it.
model.roi_heads.proposal_matcher.min_low_quality_iou = 0.5
model.roi_heads.mask_in_features = ["p2", "p3", "p4", "p5"]
model.roi_heads.mask_pooler = L(ROIPooler)(
    output_size=14,
    scales=(1.0 / 4, 1.0 / 8, 1.0 / 16, 1.0 / 32),
    sampling_ratio=0,
    pooler_type="ROIAlignV2",
)
model.roi_heads.mask_head = L(CriterionMaskHead)(
    input_shape=L(ShapeSpec)(channels=256, height=14, width=14),
    criterion=MISSING,
    num_classes="${..num_classes}",
    # Four convolutions and the transposed one.
    conv_dims=[256, 256, 256, 256, 256],
)
