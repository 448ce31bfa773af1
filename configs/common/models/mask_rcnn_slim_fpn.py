"""A slim Mask R-CNN ResNet-18-FPN: the Faster R-CNN of `faster_rcnn_slim_fpn` with small masks."""

from .faster_rcnn_slim_fpn import model
from .mask_rcnn_fpn import model as _mask_rcnn

model.roi_heads.proposal_matcher = _mask_rcnn.roi_heads.proposal_matcher
model.roi_heads.mask_in_features = _mask_rcnn.roi_heads.mask_in_features
model.roi_heads.mask_pooler = _mask_rcnn.roi_heads.mask_pooler
model.roi_heads.mask_head = _mask_rcnn.roi_heads.mask_head
model.roi_heads.mask_head.input_shape.channels = 64
# Two convolutions and the transposed one.
model.roi_heads.mask_head.conv_dims = [64, 64, 64]
