"""Mask R-CNN R101-FPN with CARAFE, 36 epochs of COCO: the published recipe of RS.

16 images per iteration, 263,880 iterations, learning rate 0.012, a tenth after epochs 27 and 33.
Published box AP: rs 46.2; mask AP: rs 41.5. Short side from 480 to 960.

    python train_net.py --config-file configs/coco/mask_rcnn_R_101_CARAFE_FPN_rs_3x.py
"""

from .mask_rcnn_R_101_FPN_3x import dataloader, lr_multiplier, model, optimizer, train
from .models.carafe_fpn import use_carafe as _use_carafe

_use_carafe(model)
dataloader.train.mapper.augmentations[0].short_edge_length = (480, 560, 640, 720, 800, 880, 960)
