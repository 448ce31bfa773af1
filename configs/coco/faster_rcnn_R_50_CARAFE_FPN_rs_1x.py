"""Faster R-CNN R50-FPN with CARAFE and Rank & Sort Loss, 12 epochs."""

from ..common.criteria import rs as _rs
from ..common.faster_rcnn_R_50_CARAFE_FPN_1x import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.proposal_generator.criterion = _rs.rpn
model.roi_heads.box_predictor.criterion = _rs.roi
