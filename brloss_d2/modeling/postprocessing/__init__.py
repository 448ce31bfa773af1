"""From the outputs of a one-stage head to detections."""

from brloss_d2.modeling.postprocessing.candidates import TopAnchors, TopPairs
from brloss_d2.modeling.postprocessing.dense import DensePostprocessor
from brloss_d2.modeling.postprocessing.score_voting import ScoreVoting

__all__ = ["DensePostprocessor", "ScoreVoting", "TopAnchors", "TopPairs"]
