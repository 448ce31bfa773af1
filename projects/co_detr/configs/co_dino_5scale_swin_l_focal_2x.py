"""Co-DINO Swin-L with Quality Focal Loss, 24 epochs."""

from .common.co_dino_5scale_swin_l_1x import dataloader, model, optimizer, train
from .common.losses import use_focal as _use_focal
from .common.schedules import lr_multiplier_2x as lr_multiplier

_use_focal(model)
model.backbone.drop_path_rate = 0.5
train.max_iter = 24 * 7393
