"""Faster R-CNN R50-FPN with Bucketed AP Loss, 12 epochs."""

from ..common.criteria import bap as _bap
from ..common.faster_rcnn_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.proposal_generator.criterion = _bap.rpn
model.roi_heads.box_predictor.criterion = _bap.roi
