"""Slim FoveaBox R18-FPN with Focal Loss and smooth L1: 300 iterations on small images."""

from ..common.fovea_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train
from ..common.one_stage_criteria import fovea as _criteria

model.criterion = _criteria.focal
