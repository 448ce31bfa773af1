"""YOLACT R50, 55 epochs of COCO: the published recipe of RS.

32 images per iteration, 201,575 iterations, learning rate 0.006, decaying by a cosine, epoch by
epoch. Published box AP: rs 33.8; mask AP: rs 29.9. Images of 550 x 550 pixels, strongly augmented,
in ranking pools of 8. BRS Loss has the recipe of RS Loss.

    python train_net.py --config-file configs/coco/yolact_R_50_rs_55e.py
"""

from .data.coco_550_masks import dataloader
from .models.yolact_fpn import model
from .training import COCO_EPOCH, sgd

optimizer, lr_multiplier, train = sgd(
    lr=0.006,
    epochs=55,
    drop_after=None,
    init_checkpoint="torchvision://resnet50",
    epoch=COCO_EPOCH // 2,
    eval_epochs=5,
    weight_decay=5e-4,
    warmup_factor=0.1,
)
