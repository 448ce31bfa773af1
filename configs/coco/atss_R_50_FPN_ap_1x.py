"""ATSS R50-FPN with AP Loss, 12 epochs."""

from ..common.atss_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train
from ..common.criteria import ap as _ap

model.criterion = _ap.atss
