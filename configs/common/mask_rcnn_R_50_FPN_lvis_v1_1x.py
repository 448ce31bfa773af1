"""Mask R-CNN R50-FPN, 12 epochs of LVIS v1: the published recipe of RS and BRS.

16 images per iteration, 92,088 iterations, learning rate 0.012 (ce: 0.02), a tenth after epochs 8
and 11. Published box AP: ce 22.5, rs 25.9; mask AP: ce 21.7, rs 25.6, brs 25.8. Images with rare
categories are repeated; short side from 640 to 800, 300 detections per image.

    python train_net.py --config-file configs/lvis_v1/mask_rcnn_R_50_FPN_brs_1x.py
"""

from .data.lvis_v1 import dataloader
from .models.mask_rcnn_fpn import model
from .training import LVIS_EPOCH, sgd

model.roi_heads.num_classes = 1203
model.roi_heads.box_predictor.update(test_score_thresh=0.60, test_topk_per_image=300)
optimizer, lr_multiplier, train = sgd(
    lr=0.012,
    epochs=12,
    drop_after=(8, 11),
    init_checkpoint="torchvision://resnet50",
    epoch=LVIS_EPOCH,
)
