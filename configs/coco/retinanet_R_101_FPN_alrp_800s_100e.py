"""RetinaNet R101-FPN with ATSS assignment and aLRP Loss, 100 epochs at 800 x 800 pixels."""

from ..common.criteria import alrp as _alrp
from ..common.retinanet_R_101_FPN_800s_100e import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.criterion = _alrp.retinanet_800s
