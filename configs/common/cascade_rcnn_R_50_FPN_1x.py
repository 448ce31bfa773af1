"""The published Cascade R-CNN recipe of RS and BRS: R50, 12 epochs of COCO, 16 images, lr 0.012."""

from .faster_rcnn_R_50_FPN_1x import dataloader, lr_multiplier, optimizer, train
from .models.cascade_rcnn_fpn import model
