"""The published recipe: R50, 12 epochs of COCO, 16 images. The schedule is left to the leaf."""

from brloss_d2.engine import train_defaults

from .co_deformable_detr import model
from .data import dataloader
from .optim import optimizer

train = dict(
    train_defaults(),
    max_iter=88716,
    clip_grad_norm=0.1,
    init_checkpoint="torchvision://resnet50",
    eval_period=7393,
)
