"""SOLOv2 R101-FPN with Rank & Sort Loss, 36 epochs."""

from ..common.criteria import rs as _rs
from ..common.solov2_R_101_FPN_3x import dataloader, lr_multiplier, model, optimizer, train

model.update(criterion=_rs.solov2, mask_criterion=_rs.solov2_mask)
# As many images as on each GPU.
model.criterion.images_per_pool = model.mask_criterion.images_per_pool = 4
