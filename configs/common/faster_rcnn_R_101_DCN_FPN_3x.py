"""The published recipe of RS and BRS for a deformable ResNet-101: 36 epochs, short side 480-960."""

from brloss_d2.engine import train_defaults

from .data.coco import dataloader
from .models.faster_rcnn_fpn import model
from .models.resnet_101_dcn import bottom_up as _bottom_up
from .optim import sgd as optimizer
from .schedules import lr_multiplier_3x as lr_multiplier

model.backbone.bottom_up = _bottom_up
dataloader.train.mapper.augmentations[0].short_edge_length = (480, 560, 640, 720, 800, 880, 960)

train = dict(
    train_defaults(),
    max_iter=263880,
    init_checkpoint="torchvision://resnet101",
    eval_period=7330,
)
