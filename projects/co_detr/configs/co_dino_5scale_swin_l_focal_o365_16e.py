"""Co-DINO Swin-L with Quality Focal Loss, 16 epochs after Objects365."""

from .common.co_dino_5scale_swin_l_o365_16e import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)
from .common.losses import use_focal as _use_focal

_use_focal(model)
