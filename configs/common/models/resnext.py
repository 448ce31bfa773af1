"""Stages of ResNeXt-101 64x4d as in torchvision: 64 groups of 4 channels in the first stage.

The other lists have modulated deformable convolutions in res3 to res5, with four groups of offsets
or one.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.resnet import BottleneckBlock, ResNet

from brloss_d2.modeling import DeformableBottleneckBlock, FixedStatsBatchNorm2d


def _stage(
    num_blocks, first_stride, in_channels, out_channels, block_class=BottleneckBlock, **block
):
    return L(ResNet.make_stage)(
        block_class=block_class,
        num_blocks=num_blocks,
        stride_per_block=[first_stride] + [1] * (num_blocks - 1),
        in_channels=in_channels,
        out_channels=out_channels,
        bottleneck_channels=out_channels,
        num_groups=64,
        stride_in_1x1=False,
        norm=FixedStatsBatchNorm2d,
        **block,
    )


def _stages(**block):
    """Return all stages; `block` is about res3 to res5."""
    return [
        _stage(3, 1, 64, 256),
        _stage(4, 2, 256, 512, **block),
        _stage(23, 2, 512, 1024, **block),
        _stage(3, 2, 1024, 2048, **block),
    ]


x_101_64x4d_stages = _stages()
x_101_64x4d_dcn_stages = _stages(block_class=DeformableBottleneckBlock, offset_groups=4)
x_101_64x4d_dcn_g1_stages = _stages(block_class=DeformableBottleneckBlock, offset_groups=1)
