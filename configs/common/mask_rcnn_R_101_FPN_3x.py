"""The published 36 epochs of Mask R-CNN: R101, steps at 27 and 33, short side from 640 to 800."""

from .mask_rcnn_R_50_FPN_1x import dataloader, model, optimizer, train
from .schedules import lr_multiplier_3x as lr_multiplier

model.backbone.bottom_up.stages.depth = 101
dataloader.train.mapper.augmentations[0].short_edge_length = (640, 672, 704, 736, 768, 800)
train.update(max_iter=263880, init_checkpoint="torchvision://resnet101")
