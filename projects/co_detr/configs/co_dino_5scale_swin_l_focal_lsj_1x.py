"""Co-DINO Swin-L with Quality Focal Loss and large-scale jitter, 12 epochs."""

from .common.co_dino_5scale_swin_l_lsj_1x import dataloader, model, optimizer, train
from .common.losses import use_focal as _use_focal
from .common.schedules import lr_multiplier_1x as lr_multiplier

_use_focal(model)
