"""The published FoveaBox recipe of aLRP Loss: 100 epochs of COCO at 512 x 512 pixels, 32 images,
lr 0.008.
"""

from brloss_d2.engine import train_defaults

from .data.coco_512 import dataloader
from .models.fovea_fpn import model
from .optim import sgd as optimizer
from .schedules import lr_multiplier_100e as lr_multiplier

optimizer.lr = 0.008

train = dict(
    train_defaults(),
    max_iter=366500,
    init_checkpoint="torchvision://resnet50",
    eval_period=36650,
)
