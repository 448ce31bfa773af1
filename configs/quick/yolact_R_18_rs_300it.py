"""Slim YOLACT R18 with Rank & Sort Loss: 300 iterations on small images."""

from ..common.criteria import rs as _rs
from ..common.yolact_R_18_300it import dataloader, lr_multiplier, model, optimizer, train

model.update(criterion=_rs.yolact, mask_criterion=_rs.yolact_mask)
