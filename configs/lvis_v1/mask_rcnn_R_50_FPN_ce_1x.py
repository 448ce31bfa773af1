"""Mask R-CNN R50-FPN with cross-entropy and L1 on LVIS v1, 12 epochs: the score-based baseline."""

from ..common.cross_entropy import use_cross_entropy as _use_cross_entropy
from ..common.mask_rcnn_R_50_FPN_lvis_v1_1x import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

_use_cross_entropy(model)
model.roi_heads.box_predictor.test_score_thresh = 1e-4
optimizer.lr = 0.02
