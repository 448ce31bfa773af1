"""The Mask R-CNN recipe of RS and BRS for Cityscapes: 12 epochs of 8 passes, a step after 8.

It starts from a Mask R-CNN trained on COCO: `train.init_checkpoint=FILE`, the checkpoint of a run
of `coco/mask_rcnn_R_50_FPN_*_1x` or one of mmdetection after `tools/convert_checkpoint.py`. The
last layers of the box and mask branches, whose shapes depend on the number of classes, start anew;
all else is taken over. The passes and the start are those of the base config that the published one
names; no more is known of how its numbers came about.
"""

from .data.cityscapes import dataloader
from .mask_rcnn_R_50_FPN_1x import model, optimizer, train
from .schedules import CITYSCAPES_EPOCH as _EPOCH
from .schedules import lr_multiplier_cityscapes as lr_multiplier

model.roi_heads.num_classes = 8
train.update(
    max_iter=12 * _EPOCH, eval_period=_EPOCH, init_checkpoint="coco_mask_rcnn_R_50_FPN.pth"
)
