"""ATSS R50-FPN with Bucketed Rank & Sort Loss, 12 epochs."""

from ..common.atss_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train
from ..common.criteria import brs as _brs

model.criterion = _brs.atss
