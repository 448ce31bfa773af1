"""SOLOv2-light with a ResNet-34 and FPN: half of the convolutions and channels, smaller images."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import ResNet

from brloss_d2.modeling import FixedStatsBatchNorm2d

from .solov2_fpn import model

model.backbone.bottom_up.stages = L(ResNet.make_default_stages)(
    depth=34, norm=FixedStatsBatchNorm2d
)
model.head.update(kernel_dim=128, conv_dims=[256, 256])
model.assigner.scale_ranges = [[1, 56], [28, 112], [56, 224], [112, 448], [224, 896]]
