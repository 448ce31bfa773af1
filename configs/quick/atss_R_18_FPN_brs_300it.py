"""Slim ATSS R18-FPN with Bucketed Rank & Sort Loss: 300 iterations on small images."""

from ..common.atss_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train
from ..common.criteria import brs as _brs

model.criterion = _brs.atss
