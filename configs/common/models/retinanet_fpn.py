"""RetinaNet with a ResNet-50 and FPN: 9 anchors per cell, assignment by IoU.

The leaf sets the criterion: `model.criterion`.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from omegaconf import MISSING

from brloss_d2.modeling import (
    P6P7,
    DeltaTransform,
    DensePostprocessor,
    FixedStatsBatchNorm2d,
    MaxIoUAssigner,
    MaxIoUMatcher,
    OneStageDetector,
    RatioMajorAnchorGenerator,
    TopAnchors,
    TowerHead,
)

model = L(OneStageDetector)(
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm=FixedStatsBatchNorm2d),
            stages=L(ResNet.make_default_stages)(
                depth=50, stride_in_1x1=False, norm=FixedStatsBatchNorm2d
            ),
            out_features=["res3", "res4", "res5"],
            freeze_at=2,
        ),
        in_features="${.bottom_up.out_features}",
        out_channels=256,
        top_block=L(P6P7)(in_channels=2048, out_channels="${..out_channels}", in_feature="res5"),
    ),
    head=L(TowerHead)(
        in_channels="${..backbone.out_channels}",
        num_classes="${..num_classes}",
        num_anchors=9,
        conv_dims=[256, 256, 256, 256],
    ),
    anchor_generator=L(RatioMajorAnchorGenerator)(
        sizes=[[x, x * 2 ** (1 / 3), x * 2 ** (2 / 3)] for x in (32, 64, 128, 256, 512)],
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=[8, 16, 32, 64, 128],
        offset=0.0,
    ),
    box_transform=L(DeltaTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
    assigner=L(MaxIoUAssigner)(
        matcher=L(MaxIoUMatcher)(
            # The floor keeps objects that no anchor overlaps from claiming all of them.
            thresholds=[0.4, 0.5],
            labels=[0, -1, 1],
            min_low_quality_iou=1e-6,
        )
    ),
    criterion=MISSING,
    postprocessor=L(DensePostprocessor)(
        select=L(TopAnchors)(topk=1000, score_thresh=0.05), nms_thresh=0.5, max_detections=100
    ),
    num_classes=80,
    # RGB, as torchvision's backbones expect it.
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    input_format="RGB",
)
