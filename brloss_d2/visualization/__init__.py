"""Pictures of predictions beside ground truth."""

from brloss_d2.visualization.comparison import ImagePair, LabelledBoxes, draw_comparison
from brloss_d2.visualization.detections import draw_detections
from brloss_d2.visualization.evaluated_run import EvaluatedRun, best_f1_threshold

__all__ = [
    "EvaluatedRun",
    "ImagePair",
    "LabelledBoxes",
    "best_f1_threshold",
    "draw_comparison",
    "draw_detections",
]
