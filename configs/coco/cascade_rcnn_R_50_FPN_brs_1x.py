"""Cascade R-CNN R50-FPN with Bucketed Rank & Sort Loss, 12 epochs."""

from ..common.cascade_rcnn_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train
from ..common.criteria import brs as _brs

model.proposal_generator.criterion = _brs.rpn
for _stage in model.roi_heads.box_predictors:
    _stage.criterion = _brs.roi
