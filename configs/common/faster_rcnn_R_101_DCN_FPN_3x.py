"""Faster R-CNN with a deformable R101-FPN, 36 epochs of COCO: the published recipe of RS and BRS.

16 images per iteration, 263,880 iterations, learning rate 0.012 (ce: 0.02), a tenth after epochs 27
and 33. Published box AP: rs 47.3, brs 47.7. Short side from 480 to 960.

    python train_net.py --config-file configs/coco/faster_rcnn_R_101_DCN_FPN_brs_3x.py
"""

from .data.coco import dataloader
from .models.faster_rcnn_fpn import model
from .models.resnet_101_dcn import bottom_up as _bottom_up
from .training import sgd

model.backbone.bottom_up = _bottom_up
dataloader.train.mapper.augmentations[0].short_edge_length = (480, 560, 640, 720, 800, 880, 960)
optimizer, lr_multiplier, train = sgd(
    lr=0.012, epochs=36, drop_after=(27, 33), init_checkpoint="torchvision://resnet101"
)
