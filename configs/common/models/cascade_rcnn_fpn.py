"""Cascade R-CNN with three stages, laid out for the ranking losses as `faster_rcnn_fpn` is.

Equal standard deviations and loss weights in all stages, no sampling, no anchors across the border.
The leaf sets the criteria: `model.proposal_generator.criterion` and those of
`model.roi_heads.box_predictors`.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from omegaconf import MISSING

from brloss_d2.modeling import (
    BoxTransform,
    CriterionBoxPredictor,
    CriterionCascadeROIHeads,
    MaxIoUMatcher,
)

from .faster_rcnn_fpn import model


def _box_head():
    return L(FastRCNNConvFCHead)(
        input_shape=L(ShapeSpec)(channels=256, height=7, width=7),
        conv_dims=[],
        fc_dims=[1024, 1024],
    )


def _box_predictor():
    return L(CriterionBoxPredictor)(
        input_shape=L(ShapeSpec)(channels=1024),
        criterion=MISSING,
        box2box_transform=L(BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
        num_classes="${...num_classes}",
        cls_agnostic_bbox_reg=True,
        test_score_thresh=0.40,
        test_nms_thresh=0.5,
        test_topk_per_image=100,
        loss_weight=1.0,
    )


model.proposal_generator.anchor_boundary_thresh = 0
model.roi_heads = L(CriterionCascadeROIHeads)(
    num_classes=80,
    batch_size_per_image=None,
    box_in_features=["p2", "p3", "p4", "p5"],
    box_pooler=model.roi_heads.box_pooler,
    box_heads=[_box_head() for _ in range(3)],
    box_predictors=[_box_predictor() for _ in range(3)],
    proposal_matchers=[
        L(MaxIoUMatcher)(thresholds=[iou], labels=[0, 1]) for iou in (0.5, 0.6, 0.7)
    ],
)
