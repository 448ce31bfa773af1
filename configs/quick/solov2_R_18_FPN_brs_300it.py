"""Slim SOLOv2 R18-FPN with Bucketed Rank & Sort Loss: 300 iterations on small images."""

from ..common.criteria import brs as _brs
from ..common.solov2_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train

model.update(criterion=_brs.solov2, mask_criterion=_brs.solov2_mask)
