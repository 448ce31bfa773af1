"""Ranking-based losses for object detection and instance segmentation, on Detectron2.

Losses and criteria need torch only; `predict` and `model_zoo` need detectron2 too. Nothing is
imported before it is used.

Example:
    >>> import torch
    >>> import brloss_d2
    >>> logits = torch.tensor([2.0, 1.0, 0.5], requires_grad=True)
    >>> losses = brloss_d2.ap_loss(logits, torch.tensor([1, 0, 1]))
    >>> round(losses["loss_rank"].item(), 4)
    0.1364
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from brloss_d2.errors import InputError

if TYPE_CHECKING:
    from brloss_d2 import model_zoo
    from brloss_d2.criteria import (
        ALRPCriterion,
        Centerness,
        Criterion,
        CriterionOutput,
        HardNegativeCriterion,
        MaskCriterion,
        MatchedMasks,
        MatchedPredictions,
        PooledCriterion,
        PositiveQuality,
        PredictedIoU,
        QualityBranch,
        RankingCriterion,
        RelativeIoU,
        ScoreAndIoU,
        SigmoidCriterion,
        SoftmaxCriterion,
        TaskAlignment,
        TopScore,
    )
    from brloss_d2.losses import (
        ALRPLoss,
        APLoss,
        Balancer,
        BinaryCrossEntropyLoss,
        BoxLoss,
        BucketedAPLoss,
        BucketedRankSortLoss,
        ClassWeightedLoss,
        ConstantBalancer,
        CorrelationLoss,
        DiceLoss,
        DRLoss,
        EpochSelfBalancer,
        GIoULoss,
        IABCELoss,
        MaskCrossEntropyLoss,
        MaskLoss,
        MatchabilityAwareLoss,
        PositionSupervisedLoss,
        QualityFocalLoss,
        RankingLoss,
        RankSortLoss,
        ScoreLoss,
        SelfBalancer,
        SigmoidFocalLoss,
        SmoothL1Loss,
        VarifocalLoss,
        alrp_loss,
        ap_loss,
        bucketed_ap_loss,
        bucketed_rank_sort_loss,
        dice_loss,
        dr_loss,
        paired_box_giou,
        paired_box_iou,
        rank_sort_loss,
    )
    from brloss_d2.prediction import predict

__version__ = "0.2.0"

__all__ = [
    "ALRPCriterion",
    "ALRPLoss",
    "APLoss",
    "Balancer",
    "BinaryCrossEntropyLoss",
    "BoxLoss",
    "BucketedAPLoss",
    "BucketedRankSortLoss",
    "Centerness",
    "ClassWeightedLoss",
    "ConstantBalancer",
    "CorrelationLoss",
    "Criterion",
    "CriterionOutput",
    "DRLoss",
    "DiceLoss",
    "EpochSelfBalancer",
    "GIoULoss",
    "HardNegativeCriterion",
    "IABCELoss",
    "InputError",
    "MaskCriterion",
    "MaskCrossEntropyLoss",
    "MaskLoss",
    "MatchabilityAwareLoss",
    "MatchedMasks",
    "MatchedPredictions",
    "PooledCriterion",
    "PositionSupervisedLoss",
    "PositiveQuality",
    "PredictedIoU",
    "QualityBranch",
    "QualityFocalLoss",
    "RankSortLoss",
    "RankingCriterion",
    "RankingLoss",
    "RelativeIoU",
    "ScoreAndIoU",
    "ScoreLoss",
    "SelfBalancer",
    "SigmoidCriterion",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "SoftmaxCriterion",
    "TaskAlignment",
    "TopScore",
    "VarifocalLoss",
    "__version__",
    "alrp_loss",
    "ap_loss",
    "bucketed_ap_loss",
    "bucketed_rank_sort_loss",
    "dice_loss",
    "dr_loss",
    "model_zoo",
    "paired_box_giou",
    "paired_box_iou",
    "predict",
    "rank_sort_loss",
]

# Importable as attributes too.
_PACKAGES = (
    *("checkpoint", "criteria", "data", "engine", "evaluation", "losses", "model_zoo"),
    *("modeling", "ops", "plotting", "prediction"),
)

if not TYPE_CHECKING:  # which makes type checkers report unknown names

    def __getattr__(name: str) -> Any:
        """Import a name of `__all__` when it is used for the first time."""
        if name in _PACKAGES:
            return import_module(f"brloss_d2.{name}")
        if name in __all__:
            # The lightest first: detectron2 is imported for `predict` only.
            for part in ("losses", "criteria", "prediction"):
                module = import_module(f"brloss_d2.{part}")
                if name in module.__all__:
                    return getattr(module, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return list(__all__)
