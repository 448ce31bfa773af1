"""ATSS R50-FPN with Rank & Sort Loss from ImageNet weights: 3,000 iterations."""

from ..common.atss_R_50_FPN_3000it import dataloader, lr_multiplier, model, optimizer, train
from ..common.criteria import rs as _rs

model.criterion = _rs.atss
