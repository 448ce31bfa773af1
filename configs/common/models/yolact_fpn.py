"""YOLACT with a ResNet-50 and FPN: 3 anchors per cell, masks of 32 prototypes, nothing frozen.

Images are not padded; they are 550 x 550 pixels in the published recipes. The leaf sets the
criteria, `model.criterion` and `model.mask_criterion`.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import BasicStem, ResNet
from omegaconf import MISSING

from brloss_d2.modeling import (
    P6P7,
    YOLACT,
    BilinearFPN,
    CoefficientHead,
    DeltaTransform,
    FastNMSPostprocessor,
    FittedAnchorGenerator,
    MaxIoUAssigner,
    MaxIoUMatcher,
    PrototypeNet,
)

model = L(YOLACT)(
    backbone=L(BilinearFPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="BN"),
            stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="BN"),
            out_features=["res3", "res4", "res5"],
            freeze_at=0,
        ),
        in_features="${.bottom_up.out_features}",
        out_channels=256,
        top_block=L(P6P7)(in_channels=2048, out_channels="${..out_channels}", in_feature="res5"),
    ),
    head=L(CoefficientHead)(
        in_channels="${..backbone.out_channels}",
        num_classes="${..num_classes}",
        num_anchors=3,
        num_prototypes=32,
        conv_dims=[256],
    ),
    prototype_net=L(PrototypeNet)(
        in_channels="${..backbone.out_channels}",
        num_prototypes="${..head.num_prototypes}",
        conv_dims=[256, 256, 256, 256],
    ),
    anchor_generator=L(FittedAnchorGenerator)(
        sizes=[[24], [48], [96], [192], [384]], aspect_ratios=[0.5, 1.0, 2.0]
    ),
    box_transform=L(DeltaTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
    assigner=L(MaxIoUAssigner)(
        matcher=L(MaxIoUMatcher)(
            # The floor keeps objects that no anchor overlaps from claiming the first one.
            thresholds=[0.4, 0.5],
            labels=[0, -1, 1],
            min_low_quality_iou=1e-6,
            single_best=True,
        )
    ),
    criterion=MISSING,
    mask_criterion=MISSING,
    postprocessor=L(FastNMSPostprocessor)(
        topk=1000, score_thresh=0.05, nms_thresh=0.5, max_per_class=200, max_detections=100
    ),
    num_classes=80,
    # RGB, as torchvision's backbones expect it.
    pixel_mean=[123.68, 116.78, 103.94],
    pixel_std=[58.40, 57.12, 57.38],
    padding_divisor=1,
    input_format="RGB",
)
