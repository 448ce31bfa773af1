"""Slim RetinaNet R18-FPN with Focal Loss and L1: 300 iterations on small images."""

from detectron2.config import LazyCall as _L

from brloss_d2.modeling import TopPairs as _TopPairs

from ..common.criteria import focal as _focal
from ..common.retinanet_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train

model.merge_with(
    dict(
        criterion=_focal.retinanet,
        box_transform=dict(weights=[1.0, 1.0, 1.0, 1.0]),
        postprocessor=dict(select=_L(_TopPairs)(topk=1000, score_thresh=0.001)),
    )
)
