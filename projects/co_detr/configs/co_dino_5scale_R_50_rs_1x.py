"""Co-DINO R50 with Rank & Sort Loss, 12 epochs."""

from .common.co_dino_5scale_R_50_1x import dataloader, model, optimizer, train
from .common.losses import use_rs as _use_rs
from .common.schedules import lr_multiplier_ranking_1x as lr_multiplier

_use_rs(model)
