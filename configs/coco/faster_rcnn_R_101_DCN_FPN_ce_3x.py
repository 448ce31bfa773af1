"""Faster R-CNN R101-FPN with deformable convolutions, cross-entropy and L1, 36 epochs."""

from ..common.faster_rcnn_R_101_DCN_FPN_3x import dataloader, lr_multiplier, train
from ..common.models.resnet_101_dcn import bottom_up as _bottom_up
from .faster_rcnn_R_50_FPN_ce_1x import model, optimizer

model.backbone.bottom_up = _bottom_up
