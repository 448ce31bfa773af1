"""Faster R-CNN R50-FPN with cross-entropy and GIoU Loss, 100 epochs at 512 x 512 pixels."""

from ..common.cross_entropy import use_cross_entropy as _use_cross_entropy
from ..common.cross_entropy import use_giou as _use_giou
from ..common.faster_rcnn_R_50_FPN_500s_100e import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

_use_cross_entropy(model)
_use_giou(model)
optimizer.lr = 0.04
