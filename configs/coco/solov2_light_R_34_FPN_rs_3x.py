"""SOLOv2-light R34-FPN with Rank & Sort Loss, 36 epochs."""

from ..common.criteria import rs as _rs
from ..common.solov2_light_R_34_FPN_3x import dataloader, lr_multiplier, model, optimizer, train

model.update(criterion=_rs.solov2, mask_criterion=_rs.solov2_mask)
