"""Which prediction answers for which object."""

from brloss_d2.modeling.one_stage.assigners.atss import ATSSAssigner
from brloss_d2.modeling.one_stage.assigners.base import (
    BACKGROUND,
    IGNORED,
    AnchorPredictions,
    Assigner,
    LevelAnchors,
)
from brloss_d2.modeling.one_stage.assigners.fovea import FoveaAssigner
from brloss_d2.modeling.one_stage.assigners.iou import MaxIoUAssigner
from brloss_d2.modeling.one_stage.assigners.paa import PAAAssigner
from brloss_d2.modeling.one_stage.assigners.task_aligned import TaskAlignedAssigner

__all__ = [
    "BACKGROUND",
    "IGNORED",
    "ATSSAssigner",
    "AnchorPredictions",
    "Assigner",
    "FoveaAssigner",
    "LevelAnchors",
    "MaxIoUAssigner",
    "PAAAssigner",
    "TaskAlignedAssigner",
]
