"""PAA R50-FPN with Rank & Sort Loss, 12 epochs."""

from ..common.criteria import rs as _rs
from ..common.paa_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _rs.paa
