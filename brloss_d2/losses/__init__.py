"""Ranking-based losses, and the score-based ones they are compared with. Needs torch alone."""

from .alrp_loss import ALRPLoss, alrp_loss
from .ap_loss import APLoss, BucketedAPLoss, ap_loss, bucketed_ap_loss
from .balancing import Balancer, ConstantBalancer, EpochSelfBalancer, SelfBalancer
from .base import RankingLoss
from .box_losses import BoxLoss, GIoULoss, SmoothL1Loss, paired_box_giou, paired_box_iou
from .rank_sort_loss import (
    BucketedRankSortLoss,
    RankSortLoss,
    bucketed_rank_sort_loss,
    rank_sort_loss,
)
from .score_losses import BinaryCrossEntropyLoss, ScoreLoss, SigmoidFocalLoss

__all__ = [
    "ALRPLoss",
    "APLoss",
    "Balancer",
    "BinaryCrossEntropyLoss",
    "BoxLoss",
    "BucketedAPLoss",
    "BucketedRankSortLoss",
    "ConstantBalancer",
    "EpochSelfBalancer",
    "GIoULoss",
    "RankSortLoss",
    "RankingLoss",
    "ScoreLoss",
    "SelfBalancer",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "alrp_loss",
    "ap_loss",
    "bucketed_ap_loss",
    "bucketed_rank_sort_loss",
    "paired_box_giou",
    "paired_box_iou",
    "rank_sort_loss",
]
