"""Slim YOLACT R18 with cross-entropy on hard negatives: 300 iterations on small images."""

from ..common.yolact_loss import use_loss as _use_loss
from ..common.yolact_R_18_300it import dataloader, lr_multiplier, model, optimizer, train

_use_loss(model, "ce")
