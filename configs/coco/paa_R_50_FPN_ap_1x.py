"""PAA R50-FPN with AP Loss, 12 epochs."""

from ..common.criteria import ap as _ap
from ..common.paa_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _ap.paa
