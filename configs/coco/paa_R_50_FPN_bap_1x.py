"""PAA R50-FPN with Bucketed AP Loss, 12 epochs."""

from ..common.criteria import bap as _bap
from ..common.paa_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _bap.paa
