"""Which predictions of a level compete in non-maximum suppression.

`select(probs (R, K), quality (R,) or None) -> (rows (C,), classes (C,), scores (C,))`: candidates,
C pairs of an anchor and a class.
"""

import torch
from torch import Tensor


class TopAnchors:
    """The anchors with the best classes; of these every class above the threshold.

    The rule of the ranking-loss detectors. A quality branch enters before the selection, as the
    geometric mean of class score and quality (PAA).

    Args:
        topk: anchors kept a level.
        score_thresh: candidates need a higher score.
    """

    def __init__(self, *, topk: int = 1000, score_thresh: float = 0.05):
        self.topk, self.score_thresh = topk, score_thresh

    def __call__(
        self, probs: Tensor, quality: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        if quality is not None:
            probs = (probs * quality[:, None]).sqrt()
        anchors = torch.arange(probs.shape[0], device=probs.device)
        if torch.jit.is_tracing() or len(probs) > self.topk:
            anchors = probs.amax(1).topk(_at_most(self.topk, probs)).indices
        best = probs[anchors]
        kept, classes = (best > self.score_thresh).nonzero(as_tuple=True)
        return anchors[kept], classes, best[kept, classes]


class TopPairs:
    """The pairs of anchor and class with the best scores above the threshold.

    The rule of RetinaNet and of the score-based ATSS. A quality branch enters after the selection,
    as a factor of the score.

    Args:
        topk: pairs kept a level.
        score_thresh: candidates need a higher class score.
    """

    def __init__(self, *, topk: int = 1000, score_thresh: float = 0.05):
        self.topk, self.score_thresh = topk, score_thresh

    def __call__(
        self, probs: Tensor, quality: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, classes = (probs > self.score_thresh).nonzero(as_tuple=True)
        scores, best = probs[rows, classes].topk(_at_most(self.topk, rows))
        rows, classes = rows[best], classes[best]
        return rows, classes, scores if quality is None else scores * quality[rows]


def _at_most(limit: int, rows: Tensor) -> int | Tensor:
    """The number of rows, but no more than `limit`; a tensor in a trace, where it may change."""
    count = rows.shape[0]
    if isinstance(count, Tensor):
        return count.clamp(max=limit)
    return min(count, limit)
