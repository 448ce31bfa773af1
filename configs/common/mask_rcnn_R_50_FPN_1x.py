"""The published Mask R-CNN recipe of RS and BRS: R50, 12 epochs of COCO, 16 images, lr 0.012."""

from .faster_rcnn_R_50_FPN_1x import dataloader, lr_multiplier, optimizer, train
from .models.mask_rcnn_fpn import model

dataloader.train.mapper.update(use_instance_mask=True, instance_mask_format="bitmask")
