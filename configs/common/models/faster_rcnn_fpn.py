"""Faster R-CNN with a ResNet-50 and FPN, laid out for the ranking losses.

No sampling, and encoded boxes with standard deviations (0.1, 0.1, 0.2, 0.2) in both stages. The
leaf sets the criteria: `model.proposal_generator.criterion` and
`model.roi_heads.box_predictor.criterion`.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from omegaconf import MISSING

from brloss_d2.modeling import (
    BoxTransform,
    CriterionBoxPredictor,
    CriterionROIHeads,
    CriterionRPN,
    FixedStatsBatchNorm2d,
    MaxIoUMatcher,
)

model = L(GeneralizedRCNN)(
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm=FixedStatsBatchNorm2d),
            stages=L(ResNet.make_default_stages)(
                depth=50, stride_in_1x1=False, norm=FixedStatsBatchNorm2d
            ),
            out_features=["res2", "res3", "res4", "res5"],
            freeze_at=2,
        ),
        in_features="${.bottom_up.out_features}",
        out_channels=256,
        top_block=L(LastLevelMaxPool)(),
    ),
    proposal_generator=L(CriterionRPN)(
        criterion=MISSING,
        loss_weight=0.2,
        in_features=["p2", "p3", "p4", "p5", "p6"],
        head=L(StandardRPNHead)(in_channels=256, num_anchors=3),
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[[32], [64], [128], [256], [512]],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16, 32, 64],
            offset=0.0,
        ),
        anchor_matcher=L(MaxIoUMatcher)(
            thresholds=[0.3, 0.7], labels=[0, -1, 1], min_low_quality_iou=0.3
        ),
        box2box_transform=L(BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
        batch_size_per_image=None,
        pre_nms_topk=(2000, 1000),
        post_nms_topk=(1000, 1000),
        nms_thresh=0.7,
    ),
    roi_heads=L(CriterionROIHeads)(
        num_classes=80,
        batch_size_per_image=None,
        proposal_matcher=L(MaxIoUMatcher)(thresholds=[0.5], labels=[0, 1]),
        box_in_features=["p2", "p3", "p4", "p5"],
        box_pooler=L(ROIPooler)(
            output_size=7,
            scales=(1.0 / 4, 1.0 / 8, 1.0 / 16, 1.0 / 32),
            sampling_ratio=0,
            pooler_type="ROIAlignV2",
        ),
        box_head=L(FastRCNNConvFCHead)(
            input_shape=L(ShapeSpec)(channels=256, height=7, width=7),
            conv_dims=[],
            fc_dims=[1024, 1024],
        ),
        box_predictor=L(CriterionBoxPredictor)(
            input_shape=L(ShapeSpec)(channels=1024),
            criterion=MISSING,
            box2box_transform=L(BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
            num_classes="${..num_classes}",
            test_score_thresh=0.40,
            test_nms_thresh=0.5,
            test_topk_per_image=100,
        ),
    ),
    # RGB, as torchvision's backbones expect it.
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    input_format="RGB",
)
