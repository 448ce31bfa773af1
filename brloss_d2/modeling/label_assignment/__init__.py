"""Which prediction answers for which object."""

from brloss_d2.modeling.label_assignment.atss import ATSSAssigner
from brloss_d2.modeling.label_assignment.base import (
    BACKGROUND,
    IGNORED,
    AnchorPredictions,
    Assigner,
    LevelAnchors,
)
from brloss_d2.modeling.label_assignment.fovea import FoveaAssigner
from brloss_d2.modeling.label_assignment.iou import (
    MaxIoUAssigner,
    MaxIoUMatcher,
    inside_padded_image,
)
from brloss_d2.modeling.label_assignment.paa import PAAAssigner

__all__ = [
    "BACKGROUND",
    "IGNORED",
    "ATSSAssigner",
    "AnchorPredictions",
    "Assigner",
    "FoveaAssigner",
    "LevelAnchors",
    "MaxIoUAssigner",
    "MaxIoUMatcher",
    "PAAAssigner",
    "inside_padded_image",
]
