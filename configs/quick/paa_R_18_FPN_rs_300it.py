"""Slim PAA R18-FPN with Rank & Sort Loss: 300 iterations on small images."""

from ..common.criteria import rs as _rs
from ..common.paa_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _rs.paa
