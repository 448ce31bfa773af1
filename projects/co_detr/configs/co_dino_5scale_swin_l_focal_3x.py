"""Co-DINO Swin-L with Quality Focal Loss, 36 epochs."""

from .common.co_dino_5scale_swin_l_1x import dataloader, model, optimizer, train
from .common.losses import use_focal as _use_focal
from .common.schedules import lr_multiplier_3x as lr_multiplier

_use_focal(model)
model.backbone.drop_path_rate = 0.6
train.max_iter = 36 * 7393
