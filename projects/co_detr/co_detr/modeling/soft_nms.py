"""Soft non-maximum suppression (Bodla et al., ICCV 2017)."""

import torch
from detectron2.structures import Instances, pairwise_iou
from torch import Tensor, nn


class SoftNMS(nn.Module):
    """Lower the scores of boxes that overlap better ones of their class.

    The best box left is kept, and the score of every other one of its class with an IoU of at least
    `iou_threshold` to it is multiplied by `1 - IoU`, until no score reaches `min_score`.

    Args:
        iou_threshold: smallest IoU that lowers a score, in [0, 1].
        min_score: smallest score that is kept, in [0, 1]. The best box of an image is always kept.
    """

    def __init__(self, *, iou_threshold: float = 0.8, min_score: float = 1e-3) -> None:
        super().__init__()
        self.iou_threshold, self.min_score = iou_threshold, min_score

    @torch.no_grad()
    def forward(self, detections: Instances) -> Instances:
        """Suppress the detections of an image.

        Args:
            detections: detections with `pred_boxes`, `scores` and `pred_classes`.

        Returns:
            Those that are kept, by descending lowered score.
        """
        classes = detections.pred_classes
        ious = pairwise_iou(detections.pred_boxes, detections.pred_boxes)
        ious = ious.masked_fill(classes[:, None] != classes, 0.0)
        factors = torch.where(ious >= self.iou_threshold, 1 - ious, 1.0)
        kept, scores = decay(detections.scores, factors, self.min_score)
        result = detections[kept]
        result.scores = scores
        return result


def decay(scores: Tensor, factors: Tensor, min_score: float) -> tuple[Tensor, Tensor]:
    """Take the best box and lower the scores of the others, again and again.

    On the CPU, where a loop over single boxes is faster than on a GPU.

    Args:
        scores: (R,) scores.
        factors: (R, R) factors of the scores of all boxes (columns) once a box (row) is taken.
        min_score: score below which boxes are dropped; the first is kept in any case.

    Returns:
        (T,) int64 boxes in the order in which they are taken, and their (T,) scores.
    """
    left, factors = scores.cpu().clone(), factors.cpu()
    kept, kept_scores = [], []
    for number in range(len(left)):
        best = int(left.argmax())
        score = left[best].clone()
        if number and score < min_score:
            break
        kept.append(best)
        kept_scores.append(score)
        left *= factors[best]
        left[best] = -torch.inf
    index = torch.tensor(kept, dtype=torch.int64, device=scores.device)
    return index, torch.stack(kept_scores).to(scores) if kept else scores[:0]
