"""RetinaNet with the assigner of ATSS and 2 square anchors per cell.

The leaf sets the criterion.
"""

from detectron2.config import LazyCall as L

from brloss_d2.modeling import ATSSAssigner

from .retinanet_fpn import model

model.head.num_anchors = 2
model.anchor_generator.update(
    sizes=[[x, x * 2**0.5] for x in (32, 64, 128, 256, 512)], aspect_ratios=[1.0]
)
model.assigner = L(ATSSAssigner)(topk=9)
