"""Pictures of predictions, evaluations and training runs."""

from brloss_d2.evaluation.run import EvaluatedRun, ImagePair, LabeledBoxes, best_f1_threshold
from brloss_d2.plotting.images import draw_comparison, draw_detections

__all__ = [
    "EvaluatedRun",
    "ImagePair",
    "LabeledBoxes",
    "best_f1_threshold",
    "draw_comparison",
    "draw_detections",
]
