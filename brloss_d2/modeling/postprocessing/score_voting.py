"""Score voting: boxes that were suppressed move the one that was kept."""

import torch
from detectron2.structures import Boxes, Instances, pairwise_iou


class ScoreVoting:
    """Replaces each detection by a mean of the candidates of its class (Kim & Lee, ECCV 2020).

    A candidate of score s counts `s exp(-(1 - IoU)^2 / sigma)`. Scores stay as they are, and so
    does a detection that no candidate overlaps, such as one without area.

    Args:
        sigma: how fast the weight falls with the distance.
        min_iou: candidates need a higher IoU with the detection.
    """

    def __init__(self, *, sigma: float = 0.025, min_iou: float = 0.01):
        self.sigma, self.min_iou = sigma, min_iou

    def __call__(self, detections: Instances, candidates: Instances) -> Instances:
        """Move detections.

        Args:
            detections: with `pred_boxes`, `scores` and `pred_classes`.
            candidates: all before suppression, the detections among them; the same fields.
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
