"""Slim Co-DINO R18 with Bucketed Rank & Sort Loss: 300 iterations on small images."""

from ..common.co_dino_R_18_300it import dataloader, lr_multiplier, model, optimizer, train
from ..common.losses import use_brs as _use_brs

_use_brs(model)
model.proposal_generator.post_nms_topk = (128, 128)
