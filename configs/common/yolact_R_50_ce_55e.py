"""YOLACT R50, 55 epochs of COCO: the recipe of the published baseline.

32 images per iteration, 201,575 iterations, learning rate 0.004, a tenth after epochs 20, 42, 49
and 52. Published mask AP: ce 28.5. The data are those of the recipe of RS; gradients are clipped.

    python train_net.py --config-file configs/coco/yolact_R_50_ce_55e.py
"""

from .data.coco_550_masks import dataloader
from .models.yolact_fpn import model
from .training import COCO_EPOCH, sgd

optimizer, lr_multiplier, train = sgd(
    lr=0.004,
    epochs=55,
    drop_after=(20, 42, 49, 52),
    init_checkpoint="torchvision://resnet50",
    epoch=COCO_EPOCH // 2,
    eval_epochs=5,
    weight_decay=5e-4,
    warmup_factor=0.1,
    clip_grad_norm=35.0,
)
