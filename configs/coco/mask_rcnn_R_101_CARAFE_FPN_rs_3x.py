"""Mask R-CNN R101-FPN with CARAFE and Rank & Sort Loss, 36 epochs."""

from ..common.criteria import rs as _rs
from ..common.mask_rcnn_R_101_CARAFE_FPN_3x import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.proposal_generator.criterion = _rs.rpn
model.roi_heads.box_predictor.criterion = _rs.roi
model.roi_heads.mask_head.criterion = _rs.mask
