"""PAA R50-FPN with Bucketed AP Loss, 12 epochs."""

from ..common.one_stage_criteria import paa as _criteria
from ..common.paa_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _criteria.bap
