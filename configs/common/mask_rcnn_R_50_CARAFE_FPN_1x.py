"""Mask R-CNN R50-FPN with CARAFE, 12 epochs of COCO: the published recipe of RS.

16 images per iteration, 87,960 iterations, learning rate 0.012, a tenth after epochs 8 and 11.
Published box AP: rs 41.1; mask AP: rs 37.3. "RS-Mask R-CNN+" in the paper: only the feature pyramid
differs from Mask R-CNN.

    python train_net.py --config-file configs/coco/mask_rcnn_R_50_CARAFE_FPN_rs_1x.py
"""

from .mask_rcnn_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train
from .models.carafe_fpn import use_carafe as _use_carafe

_use_carafe(model)
