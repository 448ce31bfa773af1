"""Slim Faster R-CNN R18-FPN with cross-entropy and L1: 300 iterations on small images."""

from ..common.criteria import ce as _ce
from ..common.faster_rcnn_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train

model.proposal_generator.update(criterion=_ce.rpn, loss_weight=1.0, batch_size_per_image=256)
model.proposal_generator.box2box_transform.weights = [1.0, 1.0, 1.0, 1.0]
model.roi_heads.batch_size_per_image = 64
model.roi_heads.box_predictor.update(criterion=_ce.roi, test_score_thresh=0.05)
