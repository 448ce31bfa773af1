"""Fast non-maximum suppression (Bolya et al., ICCV 2019): all classes at once, without a loop."""

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from brloss_d2.losses.base import check_numbers
from brloss_d2.modeling.one_stage.postprocessing import Postprocessor, best_anchors

# Bounds the memory: 64 classes with 200 boxes each are 2.6 million pairs.
_CLASSES_AT_ONCE = 64


def fast_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    nms_thresh: float = 0.5,
    score_thresh: float = 0.05,
    max_per_class: int = 200,
) -> tuple[Tensor, Tensor, Tensor]:
    """Drop each box that a better one of its class overlaps, dropped itself or not.

    Bolya et al., ICCV 2019, section 4. It drops more than greedy suppression, where a dropped box
    suppresses no other. A row may be kept for several classes.

    Args:
        boxes: (R, 4) boxes, XYXY in pixels.
        scores: (R, K) score of each box for each class.
        nms_thresh: IoU above which the lower of two boxes is dropped.
        score_thresh: score that kept boxes have to exceed; lower ones still suppress no better one.
        max_per_class: number of best boxes of each class that are compared.

    Returns:
        `(rows, classes, scores)`, (D,) each, by descending score.

    Example:
        >>> left = torch.tensor([0.0, 3.0, 6.0])
        >>> boxes = torch.stack([left, 0 * left, left + 10, 0 * left + 10], 1)
        >>> rows, _, _ = fast_nms(boxes, torch.tensor([[0.9], [0.8], [0.7]]))
        >>> rows.tolist()  # the second, though dropped, suppresses the third
        [0]
    """
    parts = []
    for first in range(0, scores.shape[1], _CLASSES_AT_ONCE):
        present = (scores[:, first : first + _CLASSES_AT_ONCE] > score_thresh).any(0)
        classes = first + present.nonzero().squeeze(1)
        ordered, order = scores[:, classes].sort(dim=0, descending=True, stable=True)
        best, rows = ordered[:max_per_class].t(), order[:max_per_class].t()
        worse = (_pairwise_iou(boxes[rows]) > nms_thresh).triu(1).any(1)
        own, place = (~worse & (best > score_thresh)).nonzero(as_tuple=True)
        parts.append((rows[own, place], classes[own], best[own, place]))
    found_rows, found_classes, found_scores = (torch.cat(part) for part in zip(*parts, strict=True))
    order = found_scores.argsort(descending=True, stable=True)
    return found_rows[order], found_classes[order], found_scores[order]


def _pairwise_iou(boxes: Tensor) -> Tensor:
    """Return (C, T, T) IoU among the (C, T, 4) boxes of each class; 0 for boxes without area."""
    (start, end), (starts, ends) = boxes[:, :, None].split(2, -1), boxes[:, None].split(2, -1)
    sides = torch.minimum(end, ends) - torch.maximum(start, starts)
    intersection = sides.clamp(min=0).prod(-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    union = area[:, :, None] + area[:, None] - intersection
    return intersection / union.where(union > 0, 1)


class FastNMSPostprocessor(Postprocessor):
    """Take the best anchors of each level and suppress non-maxima by `fast_nms` (YOLACT).

    Args:
        topk: largest number of anchors per level, those with the best class scores.
        score_thresh: score that detections have to exceed.
        nms_thresh: IoU above which the lower of two boxes of a class is dropped.
        max_per_class: number of best boxes of each class that are compared.
        max_detections: largest number of detections per image.

    Raises:
        ValueError: If a number of boxes is below 1.
    """

    def __init__(
        self,
        *,
        topk: int = 1000,
        score_thresh: float = 0.05,
        nms_thresh: float = 0.5,
        max_per_class: int = 200,
        max_detections: int = 100,
    ):
        check_numbers(">= 1", topk=topk, max_per_class=max_per_class, max_detections=max_detections)
        self.topk, self.score_thresh, self.nms_thresh = topk, score_thresh, nms_thresh
        self.max_per_class, self.max_detections = max_per_class, max_detections

    def candidates(self, probs: Tensor, quality: Tensor | None) -> tuple[Tensor, ...]:
        """Return rows (C,) and scores (C, K) of the anchors of a level."""
        return best_anchors(probs, quality, self.topk)

    def keep(
        self, image_size: tuple[int, int], boxes: Boxes, rows: Tensor, *others: Tensor
    ) -> Instances:
        """Choose the detections.

        Returns:
            `pred_boxes`, `scores`, `pred_classes` and `anchor_rows`, the row of each detection's
            anchor among the anchors of all levels; by descending score.
        """
        (scores,) = others
        kept, classes, best = fast_nms(
            boxes.tensor,
            scores,
            nms_thresh=self.nms_thresh,
            score_thresh=self.score_thresh,
            max_per_class=self.max_per_class,
        )
        kept = kept[: self.max_detections]
        return Instances(
            image_size,
            pred_boxes=boxes[kept],
            scores=best[: self.max_detections],
            pred_classes=classes[: self.max_detections],
            anchor_rows=rows[kept],
        )
