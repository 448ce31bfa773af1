"""Co-Deformable-DETR R50, 12 epochs of COCO: the published recipe.

16 images per iteration, 88,716 iterations, learning rate 0.0002; the schedule is left to the leaf.
Published box AP: focal 49.3, brs 50.1.

    python train_net.py --config-file projects/co_detr/configs/co_deformable_detr_R_50_brs_1x.py
"""

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
