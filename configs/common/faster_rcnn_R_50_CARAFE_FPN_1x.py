"""Faster R-CNN R50-FPN with CARAFE, 12 epochs of COCO: the published recipe of RS.

16 images per iteration, 87,960 iterations, learning rate 0.012, a tenth after epochs 8 and 11.
Published box AP: rs 40.8. "RS-R-CNN+" in the paper: only the feature pyramid differs from Faster
R-CNN.

    python train_net.py --config-file configs/coco/faster_rcnn_R_50_CARAFE_FPN_rs_1x.py
"""

from .faster_rcnn_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train
from .models.carafe_fpn import use_carafe as _use_carafe

_use_carafe(model)
