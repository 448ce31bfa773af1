"""Pictures of predictions beside ground truth."""

from brloss_d2.evaluation.run import EvaluatedRun, ImagePair, LabeledBoxes, best_f1_threshold
from brloss_d2.plotting.comparison import draw_comparison
from brloss_d2.plotting.detections import draw_detections

__all__ = [
    "EvaluatedRun",
    "ImagePair",
    "LabeledBoxes",
    "best_f1_threshold",
    "draw_comparison",
    "draw_detections",
]
