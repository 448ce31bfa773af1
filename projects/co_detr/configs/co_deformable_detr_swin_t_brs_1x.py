"""BRS-DETR: Co-Deformable-DETR Swin-T with Bucketed Rank & Sort Loss, 12 epochs."""

from .common.co_deformable_detr_swin_t_1x import dataloader, model, optimizer, train
from .common.losses import use_brs as _use_brs
from .common.schedules import lr_multiplier_ranking_1x as lr_multiplier

_use_brs(model)
