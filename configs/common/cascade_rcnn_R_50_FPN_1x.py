"""Cascade R-CNN R50-FPN, 12 epochs of COCO: the published recipe of RS and BRS.

16 images per iteration, 87,960 iterations, learning rate 0.012 (ce: 0.02), a tenth after epochs 8
and 11. Published box AP: rs 41.1, brs 41.1.

    python train_net.py --config-file configs/coco/cascade_rcnn_R_50_FPN_brs_1x.py
"""

from .data.coco import dataloader
from .models.cascade_rcnn_fpn import model
from .training import sgd

optimizer, lr_multiplier, train = sgd(
    lr=0.012, epochs=12, drop_after=(8, 11), init_checkpoint="torchvision://resnet50"
)
