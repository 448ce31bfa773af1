"""FoveaBox R50-FPN with aLRP Loss, 100 epochs at 512 x 512 pixels."""

from ..common.criteria import alrp as _alrp
from ..common.fovea_R_50_FPN_500s_100e import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _alrp.fovea_500s
