"""SOLOv2 R101-FPN, 36 epochs of COCO: the published recipe of RS.

16 images per iteration, 263,880 iterations, learning rate 0.006 (focal: 0.01), a tenth after epochs
27 and 33. Published mask AP: rs 39.7, focal 39.1. Short side from 640 to 800. BRS Loss has the
recipe of RS Loss.

    python train_net.py --config-file configs/coco/solov2_R_101_FPN_rs_3x.py
"""

from .data.coco_masks import dataloader
from .models.solov2_fpn import model
from .training import sgd

dataloader.train.mapper.augmentations[0].short_edge_length = (640, 672, 704, 736, 768, 800)
optimizer, lr_multiplier, train = sgd(
    lr=0.006,
    epochs=36,
    drop_after=(27, 33),
    init_checkpoint="torchvision://resnet101",
    warmup_factor=0.01,
    clip_grad_norm=35.0,
)
