"""PAA R50-FPN with Bucketed Rank & Sort Loss, 12 epochs."""

from ..common.criteria import brs as _brs
from ..common.paa_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _brs.paa
