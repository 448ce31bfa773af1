"""Co-DINO R50 with nine layers of the encoder and large-scale jitter, 12 epochs."""

from .common.co_dino_5scale_R_50_lsj_1x import dataloader, model, optimizer, train
from .common.losses import use_focal as _use_focal
from .common.schedules import lr_multiplier_1x as lr_multiplier

_use_focal(model)
model.query_head.encoder.update(num_layers=9, num_recomputed=9)
