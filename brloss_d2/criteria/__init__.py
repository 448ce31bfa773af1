"""Criteria: from matched predictions to the losses of a head. Needs torch alone."""

from brloss_d2.criteria.alrp import ALRPCriterion
from brloss_d2.criteria.hard_negatives import HardNegativeCriterion
from brloss_d2.criteria.mask import MaskCriterion, MatchedMasks
from brloss_d2.criteria.matched import Criterion, CriterionOutput, MatchedPredictions
from brloss_d2.criteria.pooling import PooledCriterion
from brloss_d2.criteria.quality import (
    Centerness,
    PositiveQuality,
    PredictedIoU,
    QualityBranch,
    TopScore,
)
from brloss_d2.criteria.ranking import RankingCriterion
from brloss_d2.criteria.score import SigmoidCriterion, SoftmaxCriterion
from brloss_d2.criteria.targets import RelativeIoU, ScoreAndIoU, TaskAlignment

__all__ = [
    "ALRPCriterion",
    "Centerness",
    "Criterion",
    "CriterionOutput",
    "HardNegativeCriterion",
    "MaskCriterion",
    "MatchedMasks",
    "MatchedPredictions",
    "PooledCriterion",
    "PositiveQuality",
    "PredictedIoU",
    "QualityBranch",
    "RankingCriterion",
    "RelativeIoU",
    "ScoreAndIoU",
    "SigmoidCriterion",
    "SoftmaxCriterion",
    "TaskAlignment",
    "TopScore",
]
