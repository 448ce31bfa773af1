"""Co-Deformable-DETR with a ResNet-50: the parts that all losses share.

`losses.py` sets the criteria, their weights and what they train on.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from omegaconf import MISSING

from brloss_d2.modeling import (
    ATSSAssigner,
    CriterionBoxPredictor,
    CriterionROIHeads,
    CriterionRPN,
    DeltaTransform,
    MaxIoUMatcher,
    RatioMajorAnchorGenerator,
    TowerHead,
)
from brloss_d2.modeling.one_stage import DenseMatcher
from brloss_d2.projects.co_detr.modeling.co_detr import CoDETR
from brloss_d2.projects.co_detr.modeling.decoder import DeformableDecoder
from brloss_d2.projects.co_detr.modeling.dense_head import AuxiliaryDenseHead
from brloss_d2.projects.co_detr.modeling.encoder import DeformableEncoder
from brloss_d2.projects.co_detr.modeling.hungarian import HungarianMatcher
from brloss_d2.projects.co_detr.modeling.neck import ChannelMapper
from brloss_d2.projects.co_detr.modeling.query_head import CoDeformableHead
from brloss_d2.projects.co_detr.modeling.query_losses import QueryLosses

_STRIDES = [8, 16, 32, 64, 128]
_transformer = dict(
    dim="${...neck.out_channels}",
    num_heads=8,
    num_levels="${...neck.num_outs}",
    num_points=4,
    num_layers=6,
    ffn_dim=2048,
)

model = L(CoDETR)(
    backbone=L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
        out_features=["res3", "res4", "res5"],
        freeze_at=2,
    ),
    neck=L(ChannelMapper)(
        input_shapes=[512, 1024, 2048],
        in_features=["res3", "res4", "res5"],
        out_channels=256,
        num_outs=4,
        num_groups=32,
    ),
    query_head=L(CoDeformableHead)(
        encoder=L(DeformableEncoder)(**_transformer),
        decoder=L(DeformableDecoder)(**_transformer),
        num_classes=80,
        num_queries=300,
        # As published, by mistake: one number per head. 256 would be one per channel.
        head_bias_dim=1,
        prior_prob=0.01,
    ),
    query_losses=L(QueryLosses)(
        matcher=L(HungarianMatcher)(cls_weight=MISSING, l1_weight=5.0, giou_weight=2.0),
        decoder=MISSING,
        encoder=MISSING,
        custom=MISSING,
        weight=2.0,
    ),
    proposal_generator=L(CriterionRPN)(
        criterion=MISSING,
        loss_weight=MISSING,
        in_features=["p3", "p4", "p5", "p6", "p7"],
        head=L(StandardRPNHead)(in_channels="${...neck.out_channels}", num_anchors=9),
        anchor_generator=L(RatioMajorAnchorGenerator)(
            sizes=[[4 * x * 2 ** (i / 3) for i in range(3)] for x in _STRIDES],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=_STRIDES,
            offset=0.0,
        ),
        anchor_matcher=L(MaxIoUMatcher)(
            thresholds=[0.3, 0.7], labels=[0, -1, 1], min_low_quality_iou=0.3
        ),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=None,
        padding_divisor=1,
        pre_nms_topk=(4000, 1000),
        post_nms_topk=MISSING,
        nms_thresh=0.7,
        min_box_size=0.0,
    ),
    roi_heads=L(CriterionROIHeads)(
        num_classes="${..query_head.num_classes}",
        batch_size_per_image=None,
        proposal_append_gt=False,
        proposal_matcher=L(MaxIoUMatcher)(thresholds=[0.5], labels=[0, 1]),
        box_in_features=["p3", "p4", "p5", "p6"],
        box_pooler=L(ROIPooler)(
            output_size=7,
            scales=(1.0 / 8, 1.0 / 16, 1.0 / 32, 1.0 / 64),
            sampling_ratio=0,
            pooler_type="ROIAlignV2",
            canonical_box_size=112,
            canonical_level=3,
        ),
        box_head=L(FastRCNNConvFCHead)(
            input_shape=L(ShapeSpec)(channels="${....neck.out_channels}", height=7, width=7),
            conv_dims=[],
            fc_dims=[1024, 1024],
        ),
        box_predictor=L(CriterionBoxPredictor)(
            input_shape=L(ShapeSpec)(channels=1024),
            criterion=MISSING,
            loss_weight=MISSING,
            box2box_transform=L(Box2BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
            num_classes="${..num_classes}",
        ),
    ),
    dense_head=L(AuxiliaryDenseHead)(
        head=L(TowerHead)(
            in_channels="${...neck.out_channels}",
            num_classes="${..matcher.num_classes}",
            num_anchors=1,
            conv_dims=[256],
            norm="GN",
            num_scaled_levels=5,
            has_quality=False,
        ),
        anchor_generator=L(RatioMajorAnchorGenerator)(
            sizes=[[8 * x] for x in _STRIDES], aspect_ratios=[1.0], strides=_STRIDES, offset=0.0
        ),
        matcher=L(DenseMatcher)(
            assigner=L(ATSSAssigner)(topk=9),
            box_transform=L(DeltaTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
            num_classes="${...query_head.num_classes}",
            padding_divisor=1,
        ),
        criterion=MISSING,
        loss_weight=MISSING,
    ),
    max_custom=300,
    max_detections=100,
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    input_format="RGB",
)
