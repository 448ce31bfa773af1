"""Soft non-maximum suppression (Bodla et al., ICCV 2017).

Shape letters: N images, R boxes, D detections.
"""

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from brloss_d2.losses.base import check_numbers

# Mark of a box that was taken, below all scores.
_TAKEN = -1.0


class SoftNMS(nn.Module):
    """Lower the scores of boxes that overlap better ones of their class.

    The best box left is kept, and the score of every other one of its class with an IoU of at least
    `iou_threshold` to it is multiplied by `1 - IoU`, until no score reaches `min_score`.

    Args:
        iou_threshold: smallest IoU that lowers a score, in [0, 1].
        min_score: smallest score that is kept, in [0, 1]. The best box of an image is always kept.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, *, iou_threshold: float = 0.8, min_score: float = 1e-3) -> None:
        super().__init__()
        check_numbers("in [0, 1]", iou_threshold=iou_threshold, min_score=min_score)
        self.iou_threshold, self.min_score = iou_threshold, min_score

    @torch.no_grad()
    def forward(self, detections: Instances, max_detections: int) -> Instances:
        """Suppress the detections of an image, on the CPU: it is a loop over single boxes.

        Args:
            detections: detections with `pred_boxes`, `scores` and `pred_classes`.
            max_detections: largest number of detections to keep.

        Returns:
            Those that are kept, by descending lowered score.
        """
        if not len(detections):
            return detections
        fields = (detections.pred_boxes.tensor, detections.scores, detections.pred_classes)
        boxes, scores, labels = (x.cpu()[None] for x in fields)
        index, scores = self.of_batch(boxes, scores, labels, max_detections)
        kept = scores[0] > 0
        kept[0] = True
        result = detections[index[0, kept].to(detections.scores.device)]
        result.scores = scores[0, kept].to(detections.scores)
        return result

    def of_batch(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, max_detections: int
    ) -> tuple[Tensor, Tensor]:
        """Suppress the boxes of several images, without a step that depends on the data.

        Args:
            boxes: (N, R, 4) XYXY in pixels.
            scores: (N, R) scores.
            labels: (N, R) classes.
            max_detections: largest number of detections D to keep.

        Returns:
            (N, D) int64 boxes in the order in which they are kept, and their (N, D) lowered scores,
            0 where no box was left.
        """
        ious = _pairwise_iou(boxes)
        lowers = (ious >= self.iou_threshold) & (labels[:, :, None] == labels[:, None])
        factors = torch.where(lowers, 1 - ious, 1.0)
        left, kept, kept_scores = scores, [], []
        for _ in range(min(max_detections, boxes.shape[1])):
            score, best = left.max(1, keepdim=True)
            kept.append(best)
            kept_scores.append(score)
            row = factors.gather(1, best[..., None].expand(-1, -1, boxes.shape[1]))[:, 0]
            left = torch.where(left < 0, left, left * row).scatter(1, best, _TAKEN)
        found = torch.cat(kept_scores, 1)
        enough = torch.cat([torch.ones_like(found[:, :1]), found[:, 1:] >= self.min_score], 1)
        return torch.cat(kept, 1), found * enough


def _pairwise_iou(boxes: Tensor) -> Tensor:
    """Compute the IoU (N, R, R) of all pairs of boxes (N, R, 4) of an image, 0 without area."""
    starts = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    ends = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    intersection = (ends - starts).clamp(min=0).prod(-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    union = areas[:, :, None] + areas[:, None] - intersection
    return torch.where(intersection > 0, intersection / union, 0.0)
