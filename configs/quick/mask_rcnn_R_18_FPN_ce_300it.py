"""Slim Mask R-CNN R18-FPN with cross-entropy and L1: 300 iterations on small images."""

from ..common.cross_entropy import use_cross_entropy as _use_cross_entropy
from ..common.mask_rcnn_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train

_use_cross_entropy(model)
