"""Faster R-CNN R50-FPN with cross-entropy and L1, 12 epochs: the score-based baseline."""

from ..common.cross_entropy import use_cross_entropy as _use_cross_entropy
from ..common.faster_rcnn_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

_use_cross_entropy(model)
optimizer.lr = 0.02
