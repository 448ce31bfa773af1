"""Faster R-CNN R50-FPN with aLRP Loss, 12 epochs.

Neither the learning rate nor the score threshold was published.
"""

from ..common.criteria import alrp as _alrp
from ..common.faster_rcnn_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.proposal_generator.criterion = _alrp.rpn
model.roi_heads.box_predictor.update(criterion=_alrp.roi, test_score_thresh=0.05)
