"""Mask R-CNN, deformable X101-64x4d-FPN with CARAFE, 36 epochs of COCO: the published recipe of RS.

16 images per iteration, 263,880 iterations, learning rate 0.012, a tenth after epochs 27 and 33.
Published box AP: rs 49.9; mask AP: rs 44.4. Short side from 480 to 960.

    python train_net.py --config-file configs/coco/mask_rcnn_X_101_64x4d_DCN_CARAFE_FPN_rs_3x.py
"""

from .mask_rcnn_R_101_CARAFE_FPN_3x import dataloader, lr_multiplier, model, optimizer, train
from .models.resnext import x_101_64x4d_dcn_stages as _stages

model.backbone.bottom_up.stages = _stages
train.init_checkpoint = "torchvision://resnext101_64x4d"
