"""FoveaBox R50-FPN with Focal Loss and smooth L1, 100 epochs at 512 x 512 pixels."""

from ..common.criteria import focal as _focal
from ..common.fovea_R_50_FPN_500s_100e import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _focal.fovea_500s
optimizer.lr = 0.02
