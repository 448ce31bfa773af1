"""Criteria: from matched predictions to the losses of a head. Needs torch alone."""

from brloss_d2.criteria.alrp import ALRPCriterion
from brloss_d2.criteria.base import Criterion, CriterionOutput, MatchedPredictions
from brloss_d2.criteria.pools import PooledCriterion
from brloss_d2.criteria.presets import CRITERION_NAMES, roi_criterion, rpn_criterion
from brloss_d2.criteria.ranking import RankingCriterion
from brloss_d2.criteria.score import SigmoidCriterion, SoftmaxCriterion

__all__ = [
    "CRITERION_NAMES",
    "ALRPCriterion",
    "Criterion",
    "CriterionOutput",
    "MatchedPredictions",
    "PooledCriterion",
    "RankingCriterion",
    "SigmoidCriterion",
    "SoftmaxCriterion",
    "roi_criterion",
    "rpn_criterion",
]
