"""Batch normalization with fixed statistics: for good, or for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


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
        if isinstance(layer, _BatchNorm):
            layer.__class__ = FixedStatsBatchNorm2d


@contextmanager
def paused_statistics(module: nn.Module) -> Iterator[None]:
    """Let all batch normalization in a module normalize as usual, but learn no statistics."""
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, deepcopy(norm.num_batches_tracked)
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
