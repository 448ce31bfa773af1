"""Parts of backbones."""

from brloss_d2.modeling.backbone.batch_norm import FixedStatsBatchNorm2d
from brloss_d2.modeling.backbone.bilinear_fpn import BilinearFPN
from brloss_d2.modeling.backbone.carafe import CarafeFPN, CarafeUpsample
from brloss_d2.modeling.backbone.classifiers import TimmBackbone, TorchvisionBackbone
from brloss_d2.modeling.backbone.deformable import DeformableBottleneckBlock, ModulatedDeformConv2d
from brloss_d2.modeling.backbone.top_block import P6P7

__all__ = [
    "P6P7",
    "BilinearFPN",
    "CarafeFPN",
    "CarafeUpsample",
    "DeformableBottleneckBlock",
    "FixedStatsBatchNorm2d",
    "ModulatedDeformConv2d",
    "TimmBackbone",
    "TorchvisionBackbone",
]
