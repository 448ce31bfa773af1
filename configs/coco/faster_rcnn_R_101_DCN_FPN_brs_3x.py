"""Faster R-CNN R101-FPN with deformable convolutions and Bucketed Rank & Sort Loss, 36 epochs."""

from ..common.criteria import brs as _brs
from ..common.faster_rcnn_R_101_DCN_FPN_3x import dataloader, lr_multiplier, model, optimizer, train

model.proposal_generator.criterion = _brs.rpn
model.roi_heads.box_predictor.criterion = _brs.roi
