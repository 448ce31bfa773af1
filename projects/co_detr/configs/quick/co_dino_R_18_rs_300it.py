"""Slim Co-DINO R18 with Rank & Sort Loss: 300 iterations on small images."""

from ..common.co_dino_R_18_300it import dataloader, lr_multiplier, model, optimizer, train
from ..common.losses import use_rs as _use_rs

_use_rs(model)
model.proposal_generator.post_nms_topk = (128, 128)
