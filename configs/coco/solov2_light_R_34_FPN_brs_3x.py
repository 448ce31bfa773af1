"""SOLOv2-light R34-FPN with Bucketed Rank & Sort Loss, 36 epochs."""

from ..common.criteria import brs as _brs
from ..common.solov2_light_R_34_FPN_3x import dataloader, lr_multiplier, model, optimizer, train

model.update(criterion=_brs.solov2, mask_criterion=_brs.solov2_mask)
