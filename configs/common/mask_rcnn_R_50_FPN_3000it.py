"""Mask R-CNN R50-FPN for a custom dataset with masks on one GPU.

4 images per iteration, 3,000 iterations, learning rate 0.003, a tenth after 2,000 and 2,750. Data,
optimizer and schedule are those of the Faster R-CNN of this length.

    python train_net.py --config-file configs/quick/mask_rcnn_R_50_FPN_rs_3000it.py
"""

from .faster_rcnn_R_50_FPN_3000it import dataloader, lr_multiplier, optimizer, train
from .models.mask_rcnn_fpn import model

dataloader.train.mapper.update(use_instance_mask=True, instance_mask_format="bitmask")
model.roi_heads.box_predictor.test_score_thresh = 0.05
