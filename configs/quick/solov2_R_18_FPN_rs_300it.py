"""Slim SOLOv2 R18-FPN with Rank & Sort Loss: 300 iterations on small images."""

from ..common.criteria import rs as _rs
from ..common.solov2_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train

model.update(criterion=_rs.solov2, mask_criterion=_rs.solov2_mask)
