"""Parts of backbones."""

from brloss_d2.modeling.backbone.batch_norm import FixedStatsBatchNorm2d

__all__ = ["FixedStatsBatchNorm2d"]
