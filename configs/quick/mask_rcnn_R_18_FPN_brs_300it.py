"""Slim Mask R-CNN R18-FPN with Bucketed Rank & Sort Loss: 300 iterations on small images."""

from ..common.criteria import brs as _brs
from ..common.mask_rcnn_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train

model.proposal_generator.criterion = _brs.rpn
model.roi_heads.box_predictor.criterion = _brs.roi
model.roi_heads.mask_head.criterion = _brs.mask
