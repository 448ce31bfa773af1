"""Slim SOLOv2 R18-FPN with Focal Loss: 300 iterations on small images."""

from ..common.criteria import focal as _focal
from ..common.solov2_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train

model.update(criterion=_focal.solov2, mask_criterion=_focal.solov2_mask)
model.assigner.first_wins = False
