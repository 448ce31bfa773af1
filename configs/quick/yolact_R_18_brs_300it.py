"""Slim YOLACT R18 with Bucketed Rank & Sort Loss: 300 iterations on small images."""

from ..common.criteria import brs as _brs
from ..common.yolact_R_18_300it import dataloader, lr_multiplier, model, optimizer, train

model.update(criterion=_brs.yolact, mask_criterion=_brs.yolact_mask)
