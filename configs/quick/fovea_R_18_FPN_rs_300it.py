"""Slim FoveaBox R18-FPN with Rank & Sort Loss: 300 iterations on small images."""

from ..common.criteria import rs as _rs
from ..common.fovea_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _rs.fovea
