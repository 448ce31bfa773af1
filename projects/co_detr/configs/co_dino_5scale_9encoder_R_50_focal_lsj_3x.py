"""Co-DINO R50 with nine layers of the encoder and large-scale jitter, 36 epochs."""

from .common.co_dino_5scale_R_50_lsj_3x import dataloader, lr_multiplier, model, optimizer, train
from .common.losses import use_focal as _use_focal

_use_focal(model)
model.query_head.encoder.update(num_layers=9, num_recomputed=9)
