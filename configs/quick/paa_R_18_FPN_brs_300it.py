"""Slim PAA R18-FPN with Bucketed Rank & Sort Loss: 300 iterations on small images."""

from ..common.one_stage_criteria import paa as _criteria
from ..common.paa_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _criteria.brs
