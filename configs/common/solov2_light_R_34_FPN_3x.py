"""SOLOv2-light R34-FPN, 36 epochs of COCO: the published recipe of RS.

32 images per iteration, 131,940 iterations, learning rate 0.012 (focal: 0.02), a tenth after epochs
27 and 33. Published mask AP: rs 32.6, focal 32.0. Short side from 352 to 512, long side up to 768;
ranking pools of 8 images. BRS Loss has the recipe of RS Loss.

    python train_net.py --config-file configs/coco/solov2_light_R_34_FPN_rs_3x.py
"""

from .data.coco_masks import dataloader
from .models.solov2_light_fpn import model
from .training import COCO_EPOCH, sgd

dataloader.train.total_batch_size = 32
dataloader.train.mapper.augmentations[0].update(
    short_edge_length=(352, 384, 416, 448, 480, 512), max_size=768
)
dataloader.test.mapper.augmentations[0].update(short_edge_length=448, max_size=768)
optimizer, lr_multiplier, train = sgd(
    lr=0.012,
    epochs=36,
    drop_after=(27, 33),
    init_checkpoint="torchvision://resnet34",
    epoch=COCO_EPOCH // 2,
    warmup_factor=0.01,
    clip_grad_norm=35.0,
)
