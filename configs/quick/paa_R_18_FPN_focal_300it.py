"""Slim PAA R18-FPN with Focal Loss and an IoU branch: 300 iterations on small images."""

from ..common.criteria import focal as _focal
from ..common.paa_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train

model.merge_with(
    dict(
        criterion=_focal.paa,
        head=dict(num_anchors=1, has_quality=True),
        anchor_generator=dict(sizes=[[64], [128], [256], [512], [1024]]),
        assigner=dict(box_weight=1.3),
    )
)
