"""Batch normalization with fixed statistics and a trainable affine part."""

import torch.nn.functional as F
from torch import Tensor, nn


class FixedStatsBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization with its stored statistics in training too.

    The published detectors train the affine part of the backbone's normalization but keep the
    running statistics of ImageNet; detectron2's `FrozenBN` freezes both. `ResNet.freeze` still
    turns the layers of frozen stages into `FrozenBN`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (N, C, H, W)."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


def fix_statistics(module: nn.Module) -> None:
    """Let all batch normalization in a module keep its statistics, in place; state dicts stay."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.__class__ = FixedStatsBatchNorm2d
