"""Detections from the candidates of all levels."""

from collections.abc import Callable

import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances
from torch import Tensor

from brloss_d2.modeling.postprocessing.score_voting import ScoreVoting

Selection = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]]


class DensePostprocessor:
    """Candidates of each level, non-maximum suppression by class, possibly score voting.

    Args:
        select: the candidates of a level, `TopAnchors` or `TopPairs`.
        nms_thresh: IoU above which the lower of two boxes of a class is dropped.
        max_detections: kept an image.
        voting: what becomes of the boxes that are kept; None leaves them.
        border: boxes are clipped to the image less so many pixels at its right and lower side.
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
        """Detect in one image.

        Args:
            anchors: those of each level.
            probs: (R_l, K) class probabilities of each level.
            deltas: (R_l, 4) box outputs.
            quality: (R_l,) predicted quality in [0, 1], or None.
            decode: turns deltas and anchors into boxes.
            image_size: height and width without padding, in pixels.

        Returns:
            `pred_boxes`, `scores` and `pred_classes`, by descending score.
        """
        parts = []
        for level, level_anchors in enumerate(anchors):
            rows, classes, scores = self.select(
                probs[level], None if quality is None else quality[level]
            )
            boxes = decode(deltas[level][rows], level_anchors.tensor[rows])
            parts.append((boxes, scores, classes))
        boxes, scores, classes = (torch.cat(part) for part in zip(*parts, strict=True))
        candidates = Instances(
            image_size,
            pred_boxes=Boxes(self._clip(boxes, image_size)),
            scores=scores,
            pred_classes=classes,
        )
        return self._suppress(candidates)

    def detect(
        self,
        anchors: list[Boxes],
        outputs: list[list[Tensor]],
        *,
        predict_probs: Callable[[Tensor], Tensor],
        decode: Callable[[Tensor, Tensor], Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Detect in a batch.

        Args:
            anchors: those of each level.
            outputs: class logits, deltas and possibly quality logits, each a list over levels of
                (N, R_l, K, 4 or 1).
            predict_probs: turns logits into probabilities.
            decode: turns deltas and anchors into boxes.
            image_sizes: height and width of each image without padding, in pixels.
        """
        logits, deltas, *quality = outputs
        return [
            self(
                anchors,
                [predict_probs(level[i].float()) for level in logits],
                [level[i] for level in deltas],
                [level[i, :, 0].float().sigmoid() for level in quality[0]] if quality else None,
                decode=decode,
                image_size=size,
            )
            for i, size in enumerate(image_sizes)
        ]

    def _clip(self, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
        clipped = Boxes(boxes)
        clipped.clip((image_size[0] - self.border, image_size[1] - self.border))
        return clipped.tensor

    def _suppress(self, candidates: Instances) -> Instances:
        keep = batched_nms(
            candidates.pred_boxes.tensor,
            candidates.scores,
            candidates.pred_classes,
            self.nms_thresh,
        )
        kept = candidates[keep[: self.max_detections]]
        return kept if self.voting is None else self.voting(kept, candidates)
