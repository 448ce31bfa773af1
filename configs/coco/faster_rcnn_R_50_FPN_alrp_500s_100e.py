"""Faster R-CNN R50-FPN with aLRP Loss, 100 epochs at 512 x 512 pixels."""

from ..common.criteria import alrp as _alrp
from ..common.faster_rcnn_R_50_FPN_500s_100e import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.proposal_generator.update(criterion=_alrp.rpn_500s, prior_prob=0.01)
model.roi_heads.proposal_append_gt = False
model.roi_heads.box_predictor.criterion = _alrp.roi_500s
