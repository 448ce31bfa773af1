"""RetinaNet R50-FPN with assignment by IoU and AP Loss, 100 epochs at 512 x 512 pixels."""

from ..common.criteria import ap as _ap
from ..common.retinanet_R_50_FPN_iou_500s_100e import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.criterion = _ap.retinanet_500s
optimizer.lr = 0.002
