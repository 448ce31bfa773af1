"""Faster R-CNN R50-FPN with cross-entropy and L1, 12 epochs: the score-based baseline."""

from ..common.criteria import ce as _ce
from ..common.faster_rcnn_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.merge_with(
    dict(
        proposal_generator=dict(
            criterion=_ce.rpn,
            loss_weight=1.0,
            batch_size_per_image=256,
            box2box_transform=dict(weights=[1.0, 1.0, 1.0, 1.0]),
        ),
        roi_heads=dict(
            batch_size_per_image=512,
            box_predictor=dict(criterion=_ce.roi, test_score_thresh=0.05),
        ),
    )
)
optimizer.lr = 0.02
