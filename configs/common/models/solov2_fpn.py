"""SOLOv2 with a ResNet-101 and FPN.

The leaf sets the criteria: `model.criterion` and `model.mask_criterion`.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from omegaconf import MISSING

from brloss_d2.modeling import (
    FixedStatsBatchNorm2d,
    GridAssigner,
    GridHead,
    GridPostprocessor,
    MaskFeatureHead,
    MatrixNMS,
    SOLOv2,
)

model = L(SOLOv2)(
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm=FixedStatsBatchNorm2d),
            stages=L(ResNet.make_default_stages)(
                depth=101, stride_in_1x1=False, norm=FixedStatsBatchNorm2d
            ),
            out_features=["res2", "res3", "res4", "res5"],
            freeze_at=2,
        ),
        in_features="${.bottom_up.out_features}",
        out_channels=256,
        top_block=L(LastLevelMaxPool)(),
    ),
    head=L(GridHead)(
        in_channels="${..backbone.out_channels}",
        num_classes="${..num_classes}",
        kernel_dim=256,
        grid_sizes=[40, 36, 24, 16, 12],
        conv_dims=[512, 512, 512, 512],
    ),
    mask_head=L(MaskFeatureHead)(
        in_channels="${..backbone.out_channels}",
        out_channels="${..head.kernel_dim}",
        conv_dim=128,
    ),
    assigner=L(GridAssigner)(
        grid_sizes="${..head.grid_sizes}",
        scale_ranges=[[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]],
    ),
    criterion=MISSING,
    mask_criterion=MISSING,
    postprocessor=L(GridPostprocessor)(
        suppress=L(MatrixNMS)(kernel="gaussian", sigma=2.0),
        score_thresh=0.2,
        max_candidates=500,
        final_thresh=0.05,
        max_detections=100,
    ),
    num_classes=80,
    # RGB, as torchvision's backbones expect it.
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    input_format="RGB",
)
