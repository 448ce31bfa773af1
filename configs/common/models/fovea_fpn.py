"""FoveaBox with a ResNet-50 and FPN: one point per cell. The leaf sets the criterion."""

from detectron2.config import LazyCall as L

from brloss_d2.modeling import FoveaAssigner, LogDistanceTransform

from .retinanet_fpn import model

model.head.num_anchors = 1
# Squares around the cells' centers: distances are in units of their sides.
model.anchor_generator.update(
    sizes=[[16], [32], [64], [128], [256]], aspect_ratios=[1.0], offset=0.5
)
model.box_transform = L(LogDistanceTransform)()
model.assigner = L(FoveaAssigner)(
    scale_ranges=[[1, 64], [32, 128], [64, 256], [128, 512], [256, 2048]], sigma=0.4
)
model.postprocessor.border = 1.0
model.padding_divisor = None
