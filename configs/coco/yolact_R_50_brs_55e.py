"""YOLACT R50 with Bucketed Rank & Sort Loss, 55 epochs at 550 x 550 pixels."""

from ..common.criteria import brs as _brs
from ..common.yolact_R_50_55e import dataloader, lr_multiplier, model, optimizer, train

model.update(criterion=_brs.yolact, mask_criterion=_brs.yolact_mask)
