"""Slim FoveaBox R18-FPN with Focal Loss and smooth L1: 300 iterations on small images."""

from ..common.criteria import focal as _focal
from ..common.fovea_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _focal.fovea
