"""Co-DINO Swin-L with Quality Focal Loss and large-scale jitter, 24 epochs."""

from .common.co_dino_5scale_swin_l_lsj_2x import dataloader, lr_multiplier, model, optimizer, train
from .common.losses import use_focal as _use_focal

_use_focal(model)
