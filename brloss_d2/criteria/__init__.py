"""Criteria: from matched predictions to the losses of a head. Needs torch alone."""

from .alrp import ALRPCriterion
from .base import Criterion, CriterionOutput, MatchedPredictions
from .presets import CRITERION_NAMES, roi_criterion, rpn_criterion
from .ranking import RankingCriterion
from .score import SigmoidCriterion, SoftmaxCriterion

__all__ = [
    "CRITERION_NAMES",
    "ALRPCriterion",
    "Criterion",
    "CriterionOutput",
    "MatchedPredictions",
    "RankingCriterion",
    "SigmoidCriterion",
    "SoftmaxCriterion",
    "roi_criterion",
    "rpn_criterion",
]
