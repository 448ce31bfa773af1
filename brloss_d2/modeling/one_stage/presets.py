"""The parts of the published one-stage detectors by name, for users who configure by name (YAML).

LazyConfig users write the same parts out, in `configs/common/models`.
"""

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from torch import nn

from brloss_d2.criteria import ONE_STAGE_ARCHITECTURES, one_stage_criterion
from brloss_d2.modeling.backbone import P6P7
from brloss_d2.modeling.matching import MaxIoUMatcher
from brloss_d2.modeling.one_stage.anchors import RatioMajorAnchorGenerator
from brloss_d2.modeling.one_stage.assigners import (
    Assigner,
    ATSSAssigner,
    FoveaAssigner,
    MaxIoUAssigner,
    PAAAssigner,
)
from brloss_d2.modeling.one_stage.box_coding import DeltaTransform, LogDistanceTransform
from brloss_d2.modeling.one_stage.head import TowerHead
from brloss_d2.modeling.one_stage.postprocessing import (
    DensePostprocessor,
    ScoreVoting,
    TopAnchors,
    TopPairs,
)

_STRIDES = (8, 16, 32, 64, 128)
# The baselines, laid out as published for focal loss.
_HARD_TARGETS = ("ce", "focal")
# Objects that no anchor overlaps would claim all anchors without a floor.
_FLOOR = 1e-6


@BACKBONE_REGISTRY.register()
def build_resnet_fpn_p6p7_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """ResNet, FPN and P6 and P7 as `MODEL.BRLOSS.ARCHITECTURE` has them."""
    bottom_up = build_resnet_backbone(cfg, input_shape)
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    on_output = _like_atss(_architecture(cfg))
    in_feature = "p5" if on_output else "res5"
    in_channels = channels if on_output else bottom_up.output_shape()["res5"].channels
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=channels,
        norm=cfg.MODEL.FPN.NORM,
        top_block=P6P7(in_channels, channels, in_feature),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def one_stage_parts(cfg: CfgNode) -> dict[str, Any]:
    """The arguments of `OneStageDetector`, with sizes and thresholds from `MODEL.RETINANET`.

    Raises:
        ValueError: `MODEL.BRLOSS.ARCHITECTURE` or `.CRITERION` is unknown.
    """
    architecture, options = _architecture(cfg), cfg.MODEL.BRLOSS
    criterion = one_stage_criterion(
        architecture, options.CRITERION, epoch_steps=options.EPOCH_STEPS
    )
    has_quality = getattr(criterion, "quality", None) is not None
    generator = _anchor_generator(architecture, has_quality)
    backbone = build_backbone(cfg)
    retinanet, normalized = cfg.MODEL.RETINANET, _like_atss(architecture)
    return {
        "backbone": backbone,
        "head": TowerHead(
            in_channels=cfg.MODEL.FPN.OUT_CHANNELS,
            num_classes=retinanet.NUM_CLASSES,
            num_anchors=generator.num_anchors[0],
            conv_dims=(cfg.MODEL.FPN.OUT_CHANNELS,) * retinanet.NUM_CONVS,
            norm="GN" if normalized else "",
            num_scaled_levels=len(_STRIDES) if normalized else 0,
            has_quality=has_quality,
            prior_prob=retinanet.PRIOR_PROB,
        ),
        "anchor_generator": generator,
        "box_transform": _box_transform(architecture, options.CRITERION),
        "assigner": _assigner(architecture, options.CRITERION),
        "criterion": criterion,
        "postprocessor": _postprocessor(cfg, architecture),
        "num_classes": retinanet.NUM_CLASSES,
        "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD,
        "padding_divisor": None if architecture == "fovea" else 32,
        "input_format": cfg.INPUT.FORMAT,
    }


def _architecture(cfg: CfgNode) -> str:
    name = cfg.MODEL.BRLOSS.ARCHITECTURE
    if name not in ONE_STAGE_ARCHITECTURES:
        raise ValueError(
            f"MODEL.BRLOSS.ARCHITECTURE is {name!r}, expected one of {ONE_STAGE_ARCHITECTURES}"
        )
    return name


def _like_atss(architecture: str) -> bool:
    """ATSS and PAA: square anchors, normalized towers, scales of levels, P6 made of P5."""
    return architecture in ("atss", "paa")


def _anchor_generator(architecture: str, has_quality: bool) -> nn.Module:
    if architecture == "fovea":
        sizes = [[2.0 * stride] for stride in _STRIDES]
        return DefaultAnchorGenerator(
            sizes=sizes, aspect_ratios=[1.0], strides=_STRIDES, offset=0.5
        )
    if has_quality:  # one anchor a cell, as the score-based detectors have it
        sizes = [[8.0 * stride] for stride in _STRIDES]
    else:
        sizes = [[4.0 * stride * 2 ** (k / 3) for k in range(3)] for stride in _STRIDES]
    ratios = [1.0] if _like_atss(architecture) else [0.5, 1.0, 2.0]
    return RatioMajorAnchorGenerator(
        sizes=sizes, aspect_ratios=ratios, strides=_STRIDES, offset=0.0
    )


def _box_transform(architecture: str, criterion: str) -> DeltaTransform | LogDistanceTransform:
    if architecture == "fovea":
        return LogDistanceTransform()
    plain = architecture == "retinanet" and criterion in _HARD_TARGETS
    return DeltaTransform((1.0,) * 4 if plain else (10.0, 10.0, 5.0, 5.0))


def _assigner(architecture: str, criterion: str) -> Assigner:
    if architecture == "atss":
        return ATSSAssigner(topk=9)
    if architecture == "fovea":
        ranges = [(1, 64), (32, 128), (64, 256), (128, 512), (256, 2048)]
        return FoveaAssigner(scale_ranges=ranges, sigma=0.4)
    if architecture == "retinanet":
        return MaxIoUAssigner(MaxIoUMatcher([0.4, 0.5], [0, -1, 1], min_low_quality_iou=_FLOOR))
    candidates = MaxIoUAssigner(MaxIoUMatcher([0.1], [0, 1], min_low_quality_iou=_FLOOR))
    return PAAAssigner(candidates, topk=9, box_weight=1.3 if criterion in _HARD_TARGETS else 1.0)


def _postprocessor(cfg: CfgNode, architecture: str) -> DensePostprocessor:
    retinanet = cfg.MODEL.RETINANET
    hard = cfg.MODEL.BRLOSS.CRITERION in _HARD_TARGETS
    by_pairs = hard and architecture in ("atss", "retinanet")
    select = (TopPairs if by_pairs else TopAnchors)(
        topk=retinanet.TOPK_CANDIDATES_TEST, score_thresh=retinanet.SCORE_THRESH_TEST
    )
    return DensePostprocessor(
        select,
        nms_thresh=0.6 if _like_atss(architecture) else 0.5,
        max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
        voting=ScoreVoting() if architecture == "paa" else None,
        border=1.0 if architecture == "fovea" else 0.0,
    )
