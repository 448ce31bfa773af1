"""FoveaBox R50-FPN with Focal Loss and smooth L1, 100 epochs at 512 x 512 pixels."""

from ..common.fovea_R_50_FPN_500s_100e import dataloader, lr_multiplier, model, optimizer, train
from ..common.one_stage_criteria import fovea as _criteria

model.criterion = _criteria.focal
optimizer.lr = 0.02
