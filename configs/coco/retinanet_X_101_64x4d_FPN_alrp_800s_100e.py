"""RetinaNet X101-64x4d-FPN with ATSS assignment and aLRP Loss, 100 epochs at 800 x 800 pixels."""

from ..common.criteria import alrp as _alrp
from ..common.models.resnext import x_101_64x4d_stages as _stages
from ..common.retinanet_R_101_FPN_800s_100e import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.criterion = _alrp.retinanet_800s
model.backbone.bottom_up.stages = _stages
train.init_checkpoint = "torchvision://resnext101_64x4d"
