"""ResNet-101 with modulated deformable convolutions in res3 to res5, four offset groups.

For a model with an FPN: `model.backbone.bottom_up = bottom_up`.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock

from brloss_d2.modeling import DeformableBottleneckBlock, FixedStatsBatchNorm2d


def _stage(num_blocks, in_channels, out_channels, first_stride, **block):
    return L(ResNet.make_stage)(
        num_blocks=num_blocks,
        stride_per_block=[first_stride] + [1] * (num_blocks - 1),
        in_channels=in_channels,
        bottleneck_channels=out_channels // 4,
        out_channels=out_channels,
        stride_in_1x1=False,
        norm=FixedStatsBatchNorm2d,
        **block,
    )


_deformable = dict(block_class=DeformableBottleneckBlock, offset_groups=4)

bottom_up = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=64, norm=FixedStatsBatchNorm2d),
    stages=[
        _stage(3, 64, 256, 1, block_class=BottleneckBlock),
        _stage(4, 256, 512, 2, **_deformable),
        _stage(23, 512, 1024, 2, **_deformable),
        _stage(3, 1024, 2048, 2, **_deformable),
    ],
    out_features=["res2", "res3", "res4", "res5"],
    freeze_at=2,
)
