"""Batch normalization with fixed statistics and a trainable affine part."""

import torch.nn.functional as F
from torch import Tensor, nn


class FixedStatsBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization that uses its stored statistics in training too.

    The published detectors train the affine part of the backbone's normalization while its running
    statistics stay those of ImageNet; detectron2's `FrozenBN` freezes both. Frozen stages are
    still turned into `FrozenBN` by `ResNet.freeze`.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )
