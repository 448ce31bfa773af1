"""Mask R-CNN R101-FPN with cross-entropy and L1, 36 epochs: the score-based baseline."""

from ..common.cross_entropy import use_cross_entropy as _use_cross_entropy
from ..common.mask_rcnn_R_101_FPN_3x import dataloader, lr_multiplier, model, optimizer, train

_use_cross_entropy(model)
optimizer.lr = 0.02
