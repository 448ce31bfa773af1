"""Co-DINO R50 with Bucketed Rank & Sort Loss as in BRS-DETR, 12 epochs."""

from .common.co_dino_5scale_R_50_1x import dataloader, model, optimizer, train
from .common.losses import use_brs as _use_brs
from .common.schedules import lr_multiplier_ranking_1x as lr_multiplier

_use_brs(model)
