"""Slim Faster R-CNN R18-FPN with cross-entropy and L1: 300 iterations on small images."""

from ..common.criteria import ce as _ce
from ..common.faster_rcnn_R_18_FPN_300it import dataloader, lr_multiplier, model, optimizer, train

model.merge_with(
    dict(
        proposal_generator=dict(
            criterion=_ce.rpn,
            loss_weight=1.0,
            batch_size_per_image=256,
            box2box_transform=dict(weights=[1.0, 1.0, 1.0, 1.0]),
        ),
        roi_heads=dict(
            batch_size_per_image=64,
            box_predictor=dict(criterion=_ce.roi, test_score_thresh=0.05),
        ),
    )
)
