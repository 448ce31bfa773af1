"""Faster R-CNN R50-FPN with Rank & Sort Loss from ImageNet weights: 3,000 iterations."""

from ..common.criteria import rs as _rs
from ..common.faster_rcnn_R_50_FPN_3000it import dataloader, lr_multiplier, model, optimizer, train

model.proposal_generator.criterion = _rs.rpn
model.roi_heads.box_predictor.criterion = _rs.roi
