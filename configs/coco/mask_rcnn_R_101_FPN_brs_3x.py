"""Mask R-CNN R101-FPN with Bucketed Rank & Sort Loss, 36 epochs."""

from ..common.criteria import brs as _brs
from ..common.mask_rcnn_R_101_FPN_3x import dataloader, lr_multiplier, model, optimizer, train

model.proposal_generator.criterion = _brs.rpn
model.roi_heads.box_predictor.criterion = _brs.roi
model.roi_heads.mask_head.criterion = _brs.mask
