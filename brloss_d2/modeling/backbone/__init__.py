"""Parts of backbones."""

from brloss_d2.modeling.backbone.batch_norm import FixedStatsBatchNorm2d
from brloss_d2.modeling.backbone.deformable import DeformableBottleneckBlock, ModulatedDeformConv2d

__all__ = ["DeformableBottleneckBlock", "FixedStatsBatchNorm2d", "ModulatedDeformConv2d"]
