"""From the outputs of a one-stage head to detections: candidates, suppression, score voting.

`select(probs (R, K), quality (R,) or None) -> (rows (C,), classes (C,), scores (C,))` chooses the
candidates of a level, C pairs of an anchor and a class.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor

from brloss_d2.modeling.one_stage.head import DenseOutputs

# Up to so many boxes torchvision suppresses on a GPU in all classes together.
_COMPARED_AT_ONCE = 5000

Selection = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]]


class TopAnchors:
    """Take the anchors with the best class scores, and all their classes above the threshold.

    The rule of the ranking-loss detectors. A quality branch is used before the selection, as the
    geometric mean of class score and quality (PAA).

    Args:
        topk: largest number of anchors per level.
        score_thresh: score that candidates have to exceed.
    """

    def __init__(self, *, topk: int = 1000, score_thresh: float = 0.05):
        self.topk, self.score_thresh = topk, score_thresh

    def __call__(
        self, probs: Tensor, quality: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return rows (C,), classes (C,) and scores (C,) of the candidates of a level."""
        anchors, best = best_anchors(probs, quality, self.topk)
        kept, classes = (best > self.score_thresh).nonzero(as_tuple=True)
        return anchors[kept], classes, best[kept, classes]


class TopPairs:
    """Take the pairs of anchor and class with the best scores above the threshold.

    The rule of RetinaNet and of the score-based ATSS. A quality branch is used after the selection,
    as a factor of the score.

    Args:
        topk: largest number of pairs per level.
        score_thresh: class score that candidates have to exceed.
    """

    def __init__(self, *, topk: int = 1000, score_thresh: float = 0.05):
        self.topk, self.score_thresh = topk, score_thresh

    def __call__(
        self, probs: Tensor, quality: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return rows (C,), classes (C,) and scores (C,) of the candidates of a level."""
        rows, classes = (probs > self.score_thresh).nonzero(as_tuple=True)
        scores, best = probs[rows, classes].topk(at_most(self.topk, rows))
        rows, classes = rows[best], classes[best]
        return rows, classes, scores if quality is None else scores * quality[rows]


def best_anchors(probs: Tensor, quality: Tensor | None, topk: int) -> tuple[Tensor, Tensor]:
    """Choose the anchors of a level with the best class scores.

    Args:
        probs: (R, K) class probabilities.
        quality: (R,) predicted quality; then a score is its geometric mean with the probability.
        topk: largest number of anchors.

    Returns:
        (A,) rows, by descending score if there are more than `topk`, and their (A, K) scores.
    """
    scores = probs if quality is None else (probs * quality[:, None]).sqrt()
    if torch.jit.is_tracing() or len(scores) > topk:
        rows = scores.amax(1).topk(at_most(topk, scores)).indices
    else:
        rows = torch.arange(len(scores), device=scores.device)
    return rows, scores[rows]


def at_most(limit: int, rows: Tensor) -> Any:
    """Return the number of rows, at most `limit`; a tensor in a trace, where it may vary."""
    count = rows.shape[0]
    if isinstance(count, Tensor):
        return count.clamp(max=limit)
    return min(count, limit)


class ScoreVoting:
    """Replace each detection by a mean of the candidates of its class (Kim & Lee, ECCV 2020).

    A candidate of score s has the weight `s exp(-(1 - IoU)^2 / sigma)`. Scores are kept, and so is
    a detection that no candidate overlaps, such as one without area.

    Args:
        sigma: width of the weight as a function of 1 - IoU, > 0.
        min_iou: IoU with the detection that candidates have to exceed.
    """

    def __init__(self, *, sigma: float = 0.025, min_iou: float = 0.01):
        self.sigma, self.min_iou = sigma, min_iou

    def __call__(self, detections: Instances, candidates: Instances) -> Instances:
        """Move the boxes of detections.

        Args:
            detections: kept detections with `pred_boxes`, `scores` and `pred_classes`.
            candidates: all candidates before suppression, with the same fields.
        """
        boxes = candidates.pred_boxes.tensor
        iou = pairwise_iou(detections.pred_boxes, candidates.pred_boxes)
        same = detections.pred_classes[:, None] == candidates.pred_classes
        weights = candidates.scores * torch.exp(-((1 - iou) ** 2) / self.sigma)
        weights = weights.masked_fill(~same | (iou <= self.min_iou), 0.0)
        total = weights.sum(1, keepdim=True)
        moved = torch.where(total > 0, weights @ boxes / total, detections.pred_boxes.tensor)
        detections.pred_boxes = Boxes(moved)
        return detections


class Postprocessor(ABC):
    """Base class: turns the outputs of a one-stage head into detections.

    Attributes:
        border: number of pixels by which boxes are clipped inside the right and lower image border.
    """

    border = 0.0

    @abstractmethod
    def candidates(self, probs: Tensor, quality: Tensor | None) -> tuple[Tensor, ...]:
        """Choose the candidates of a level.

        Args:
            probs: (R_l, K) class probabilities.
            quality: (R_l,) predicted quality in [0, 1], or None.

        Returns:
            (C,) rows of their anchors, and further tensors (C, ...) for `keep`.
        """

    @abstractmethod
    def keep(
        self, image_size: tuple[int, int], boxes: Boxes, rows: Tensor, *others: Tensor
    ) -> Instances:
        """Choose the detections among the candidates of all levels.

        Args:
            image_size: height and width without padding, in pixels.
            boxes: boxes of C candidates, clipped.
            rows: (C,) rows of their anchors among those of all levels.
            *others: further tensors of `candidates`.

        Returns:
            `pred_boxes`, `scores` and `pred_classes`, by descending score.
        """

    def __call__(
        self,
        anchors: list[Boxes],
        probs: list[Tensor],
        deltas: list[Tensor],
        quality: list[Tensor] | None,
        *,
        decode: Callable[[Tensor, Tensor], Tensor],
        image_size: tuple[int, int],
    ) -> Instances:
        """Detect objects in one image.

        Args:
            anchors: anchors of each level.
            probs: (R_l, K) class probabilities of each level.
            deltas: (R_l, 4) encoded boxes of each level.
            quality: (R_l,) predicted quality in [0, 1] of each level, or None.
            decode: function from deltas and anchors to boxes.
            image_size: height and width without padding, in pixels.

        Returns:
            Detections as of `keep`.
        """
        parts, first = [], 0
        for level, level_anchors in enumerate(anchors):
            own_quality = None if quality is None else quality[level]
            rows, *others = self.candidates(probs[level], own_quality)
            boxes = decode(deltas[level][rows], level_anchors.tensor[rows])
            parts.append((boxes, rows + first, *others))
            first = first + probs[level].shape[0]
        boxes, rows, *others = (torch.cat(part) for part in zip(*parts, strict=True))
        clipped = Boxes(boxes)
        clipped.clip((image_size[0] - self.border, image_size[1] - self.border))
        return self.keep(image_size, clipped, rows, *others)

    def detect(
        self,
        anchors: list[Boxes],
        outputs: DenseOutputs,
        *,
        predict_probs: Callable[[Tensor], Tensor],
        decode: Callable[[Tensor, Tensor], Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Detect objects in a batch.

        Args:
            anchors: anchors of each level.
            outputs: logits (N, R_l, K), deltas (N, R_l, 4) and quality (N, R_l, 1) of each level,
                see `DenseMatcher.rows`.
            predict_probs: function from logits to probabilities.
            decode: function from deltas and anchors to boxes.
            image_sizes: height and width of each image without padding, in pixels.
        """
        logits, deltas, quality = outputs
        return [
            self(
                anchors,
                [predict_probs(level[i].float()) for level in logits],
                [level[i] for level in deltas],
                quality and [level[i, :, 0].float().sigmoid() for level in quality],
                decode=decode,
                image_size=size,
            )
            for i, size in enumerate(image_sizes)
        ]


class DensePostprocessor(Postprocessor):
    """Select candidates on each level, suppress non-maxima by class, possibly vote by score.

    Args:
        select: rule for the candidates of a level, `TopAnchors` or `TopPairs`.
        nms_thresh: IoU above which the lower of two boxes of a class is dropped.
        max_detections: largest number of detections per image.
        voting: refinement of the kept boxes; None keeps them as they are.
        border: number of pixels by which boxes are clipped inside the right and lower image border.
    """

    def __init__(
        self,
        select: Selection,
        *,
        nms_thresh: float = 0.6,
        max_detections: int = 100,
        voting: ScoreVoting | None = None,
        border: float = 0.0,
    ):
        self.select, self.nms_thresh, self.max_detections = select, nms_thresh, max_detections
        self.voting, self.border = voting, border

    def candidates(self, probs: Tensor, quality: Tensor | None) -> tuple[Tensor, ...]:
        """Return rows, classes and scores of the candidates of a level, (C,) each."""
        return self.select(probs, quality)

    def keep(
        self, image_size: tuple[int, int], boxes: Boxes, rows: Tensor, *others: Tensor
    ) -> Instances:
        """Choose the detections; see `Postprocessor.keep`."""
        classes, scores = others
        candidates = Instances(image_size, pred_boxes=boxes, scores=scores, pred_classes=classes)
        kept = candidates[suppress(candidates, self.nms_thresh, self.max_detections)]
        return kept if self.voting is None else self.voting(kept, candidates)


def suppress(candidates: Instances, nms_thresh: float, max_detections: int) -> Tensor:
    """Suppress non-maxima by class.

    torchvision takes the classes of many boxes one by one and waits for a GPU at each. What is kept
    of the best boxes does not depend on the others: all are compared only if these leave too few
    detections.

    Args:
        candidates: C candidates with `pred_boxes`, `scores` and `pred_classes`.
        nms_thresh: IoU above which the lower of two boxes of a class is dropped.
        max_detections: largest number of detections.

    Returns:
        (D,) int64 indices of the detections, by descending score.
    """
    boxes, scores = candidates.pred_boxes.tensor, candidates.scores
    enough = max_detections < _COMPARED_AT_ONCE < len(scores)
    if enough and not torch.jit.is_tracing():
        best = scores.argsort(descending=True, stable=True)[:_COMPARED_AT_ONCE]
        own = batched_nms(boxes[best], scores[best], candidates.pred_classes[best], nms_thresh)
        if len(own) >= max_detections:
            return best[own[:max_detections]]
    return batched_nms(boxes, scores, candidates.pred_classes, nms_thresh)[:max_detections]
