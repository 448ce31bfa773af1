"""ATSS with a ResNet-50 and FPN, laid out for the ranking losses.

3 square anchors per cell and no centerness branch. The leaf sets the criterion.
"""

from detectron2.config import LazyCall as L

from brloss_d2.modeling import ATSSAssigner

from .retinanet_fpn import model

model.backbone.top_block.update(in_channels="${..out_channels}", in_feature="p5")
model.head.update(num_anchors=3, norm="GN", num_scaled_levels=5)
model.anchor_generator.aspect_ratios = [1.0]
model.assigner = L(ATSSAssigner)(topk=9)
model.postprocessor.nms_thresh = 0.6
