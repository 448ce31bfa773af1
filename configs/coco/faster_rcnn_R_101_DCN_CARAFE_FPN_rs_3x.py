"""Faster R-CNN, deformable R101-FPN with CARAFE and Rank & Sort Loss, 36 epochs."""

from ..common.criteria import rs as _rs
from ..common.faster_rcnn_R_101_DCN_CARAFE_FPN_3x import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.proposal_generator.criterion = _rs.rpn
model.roi_heads.box_predictor.criterion = _rs.roi
