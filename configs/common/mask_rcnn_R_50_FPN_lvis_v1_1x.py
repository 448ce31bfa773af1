"""The published Mask R-CNN recipe of RS and BRS for LVIS v1: 12 epochs with repeated images."""

from .data.lvis_v1 import dataloader
from .mask_rcnn_R_50_FPN_1x import model, optimizer, train
from .schedules import LVIS_EPOCH as _EPOCH
from .schedules import lr_multiplier_lvis_1x as lr_multiplier

model.roi_heads.num_classes = 1203
model.roi_heads.box_predictor.update(test_score_thresh=0.60, test_topk_per_image=300)
train.update(max_iter=12 * _EPOCH, eval_period=_EPOCH)
