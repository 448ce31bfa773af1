"""Slim PAA R18-FPN with Bucketed Rank & Sort Loss: 300 iterations on small images."""

from ..common.criteria import brs as _brs
from ..common.paa_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _brs.paa
