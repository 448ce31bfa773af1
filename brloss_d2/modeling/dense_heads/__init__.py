"""Heads of one-stage detectors, and how their boxes are encoded."""

from brloss_d2.modeling.dense_heads.anchors import RatioMajorAnchorGenerator
from brloss_d2.modeling.dense_heads.box_coding import DeltaTransform, LogDistanceTransform
from brloss_d2.modeling.dense_heads.matcher import DenseMatch, DenseMatcher
from brloss_d2.modeling.dense_heads.tower_head import Scale, TowerHead

__all__ = [
    "DeltaTransform",
    "DenseMatch",
    "DenseMatcher",
    "LogDistanceTransform",
    "RatioMajorAnchorGenerator",
    "Scale",
    "TowerHead",
]
