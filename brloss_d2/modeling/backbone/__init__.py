"""Parts of backbones."""

from .batch_norm import FixedStatsBatchNorm2d

__all__ = ["FixedStatsBatchNorm2d"]
