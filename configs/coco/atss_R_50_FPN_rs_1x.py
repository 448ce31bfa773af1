"""ATSS R50-FPN with Rank & Sort Loss, 12 epochs."""

from ..common.atss_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train
from ..common.criteria import rs as _rs

model.criterion = _rs.atss
