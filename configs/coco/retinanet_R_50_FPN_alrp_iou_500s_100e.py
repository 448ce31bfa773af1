"""RetinaNet R50-FPN with assignment by IoU and aLRP Loss, 100 epochs at 512 x 512 pixels."""

from ..common.criteria import alrp as _alrp
from ..common.retinanet_R_50_FPN_iou_500s_100e import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.criterion = _alrp.retinanet_500s
