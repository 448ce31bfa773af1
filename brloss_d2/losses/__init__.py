"""Ranking-based losses, and the score-based ones they are compared with. Needs torch only."""

from brloss_d2.losses.alrp import ALRPLoss, alrp_loss
from brloss_d2.losses.ap import APLoss, BucketedAPLoss, ap_loss, bucketed_ap_loss
from brloss_d2.losses.balancing import Balancer, ConstantBalancer, EpochSelfBalancer, SelfBalancer
from brloss_d2.losses.base import RankingLoss
from brloss_d2.losses.box import (
    BoxLoss,
    GIoULoss,
    SmoothL1Loss,
    paired_box_giou,
    paired_box_iou,
)
from brloss_d2.losses.class_weighted import ClassWeightedLoss
from brloss_d2.losses.correlation import CorrelationLoss
from brloss_d2.losses.distributional import DRLoss, dr_loss
from brloss_d2.losses.mask import DiceLoss, MaskCrossEntropyLoss, MaskLoss, dice_loss
from brloss_d2.losses.rank_sort import (
    BucketedRankSortLoss,
    RankSortLoss,
    bucketed_rank_sort_loss,
    rank_sort_loss,
)
from brloss_d2.losses.score import (
    BinaryCrossEntropyLoss,
    IABCELoss,
    MatchabilityAwareLoss,
    PositionSupervisedLoss,
    QualityFocalLoss,
    ScoreLoss,
    SigmoidFocalLoss,
    VarifocalLoss,
)

__all__ = [
    "ALRPLoss",
    "APLoss",
    "Balancer",
    "BinaryCrossEntropyLoss",
    "BoxLoss",
    "BucketedAPLoss",
    "BucketedRankSortLoss",
    "ClassWeightedLoss",
    "ConstantBalancer",
    "CorrelationLoss",
    "DRLoss",
    "DiceLoss",
    "EpochSelfBalancer",
    "GIoULoss",
    "IABCELoss",
    "MaskCrossEntropyLoss",
    "MaskLoss",
    "MatchabilityAwareLoss",
    "PositionSupervisedLoss",
    "QualityFocalLoss",
    "RankSortLoss",
    "RankingLoss",
    "ScoreLoss",
    "SelfBalancer",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "VarifocalLoss",
    "alrp_loss",
    "ap_loss",
    "bucketed_ap_loss",
    "bucketed_rank_sort_loss",
    "dice_loss",
    "dr_loss",
    "paired_box_giou",
    "paired_box_iou",
    "rank_sort_loss",
]
