"""Mask R-CNN R101-FPN, 36 epochs of COCO: the published recipe of RS and BRS.

16 images per iteration, 263,880 iterations, learning rate 0.012 (ce: 0.02), a tenth after epochs 27
and 33. Published box AP: rs 44.7; mask AP: rs 40.2, brs 40.3. Short side from 640 to 800.

    python train_net.py --config-file configs/coco/mask_rcnn_R_101_FPN_brs_3x.py
"""

from .data.coco_masks import dataloader
from .models.mask_rcnn_fpn import model
from .training import sgd

model.backbone.bottom_up.stages.depth = 101
dataloader.train.mapper.augmentations[0].short_edge_length = (640, 672, 704, 736, 768, 800)
optimizer, lr_multiplier, train = sgd(
    lr=0.012, epochs=36, drop_after=(27, 33), init_checkpoint="torchvision://resnet101"
)
