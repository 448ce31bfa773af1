"""The published recipe of RS and BRS: ATSS R50, 12 epochs of COCO, 16 images, lr 0.008."""

from brloss_d2.engine import train_defaults

from .data.coco import dataloader
from .models.atss_fpn import model
from .optim import sgd as optimizer
from .schedules import lr_multiplier_1x as lr_multiplier

optimizer.lr = 0.008

train = dict(
    train_defaults(),
    max_iter=87960,
    init_checkpoint="torchvision://resnet50",
    eval_period=7330,
)
