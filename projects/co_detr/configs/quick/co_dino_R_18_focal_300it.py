"""Slim Co-DINO R18 with Quality Focal Loss: 300 iterations on small images."""

from ..common.co_dino_R_18_300it import dataloader, lr_multiplier, model, optimizer, train
from ..common.losses import use_focal as _use_focal

_use_focal(model)
model.proposal_generator.post_nms_topk = (128, 128)
