"""Pictures of predictions, evaluations and training runs."""

from brloss_d2.evaluation.run import LabeledBoxes
from brloss_d2.plotting.images import draw_comparison, draw_detections

__all__ = [
    "LabeledBoxes",
    "draw_comparison",
    "draw_detections",
]
