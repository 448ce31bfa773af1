"""Stages of ResNeXt-101 64x4d as in torchvision: 64 groups of 4 channels in the first stage."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.resnet import BottleneckBlock, ResNet

from brloss_d2.modeling import FixedStatsBatchNorm2d


def _stage(num_blocks, first_stride, in_channels, out_channels):
    return L(ResNet.make_stage)(
        block_class=BottleneckBlock,
        num_blocks=num_blocks,
        stride_per_block=[first_stride] + [1] * (num_blocks - 1),
        in_channels=in_channels,
        out_channels=out_channels,
        bottleneck_channels=out_channels,
        num_groups=64,
        stride_in_1x1=False,
        norm=FixedStatsBatchNorm2d,
    )


x_101_64x4d_stages = [
    _stage(3, 1, 64, 256),
    _stage(4, 2, 256, 512),
    _stage(23, 2, 512, 1024),
    _stage(3, 2, 1024, 2048),
]
