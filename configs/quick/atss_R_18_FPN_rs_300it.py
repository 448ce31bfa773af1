"""Slim ATSS R18-FPN with Rank & Sort Loss: 300 iterations on small images."""

from ..common.atss_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train
from ..common.criteria import rs as _rs

model.criterion = _rs.atss
