"""YOLACT R50 with Rank & Sort Loss, 55 epochs at 550 x 550 pixels."""

from ..common.criteria import rs as _rs
from ..common.yolact_R_50_55e import dataloader, lr_multiplier, model, optimizer, train

model.update(criterion=_rs.yolact, mask_criterion=_rs.yolact_mask)
