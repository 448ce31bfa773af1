"""ATSS R50-FPN with Focal Loss and a centerness branch, 12 epochs: the score-based baseline."""

from detectron2.config import LazyCall as _L

from brloss_d2.modeling import TopPairs as _TopPairs

from ..common.atss_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train
from ..common.criteria import focal as _focal

model.merge_with(
    dict(
        criterion=_focal.atss,
        head=dict(num_anchors=1, has_quality=True),
        anchor_generator=dict(sizes=[[64], [128], [256], [512], [1024]]),
        postprocessor=dict(select=_L(_TopPairs)(topk=1000, score_thresh=0.05)),
    )
)
optimizer.lr = 0.01
