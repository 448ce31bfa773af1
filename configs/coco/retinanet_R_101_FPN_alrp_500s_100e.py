"""RetinaNet R101-FPN with ATSS assignment and aLRP Loss, 100 epochs at 512 x 512 pixels."""

from ..common.criteria import alrp as _alrp
from ..common.retinanet_R_50_FPN_500s_100e import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _alrp.retinanet_500s
model.backbone.bottom_up.stages.depth = 101
train.init_checkpoint = "torchvision://resnet101"
