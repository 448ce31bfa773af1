"""Slim Mask R-CNN R18-FPN with Rank & Sort Loss: 300 iterations on small images."""

from ..common.criteria import rs as _rs
from ..common.mask_rcnn_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train

model.proposal_generator.criterion = _rs.rpn
model.roi_heads.box_predictor.criterion = _rs.roi
model.roi_heads.mask_head.criterion = _rs.mask
