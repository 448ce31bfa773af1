"""YOLACT R50 with cross-entropy on hard negatives, 55 epochs at 550 x 550 pixels.

The loss of a mask is divided by the share of its box in the image, as in the original.
"""

from ..common.yolact_loss import use_loss as _use_loss
from ..common.yolact_R_50_ce_55e import dataloader, lr_multiplier, model, optimizer, train

_use_loss(model, "ce")
model.masks_by_area = True
