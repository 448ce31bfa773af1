"""Adaptive training sample selection."""

import torch
from detectron2.structures import Instances
from torch import Tensor

from brloss_d2.losses import paired_box_iou
from brloss_d2.modeling.one_stage.assigners.base import (
    OBJECTS_AT_ONCE,
    AnchorPredictions,
    Assigner,
    LevelAnchors,
    background,
    depth_inside,
    largest_iou_wins,
)


class ATSSAssigner(Assigner):
    """Adaptive training sample selection (Zhang et al., CVPR 2020).

    The candidates of an object are the `topk` anchors of each level nearest to its center. Those
    become positive whose IoU reaches mean + standard deviation over all candidates of the object
    and whose center lies inside the object. An anchor that is positive for several objects goes to
    the one that it overlaps most. No anchor is ignored.

    Which of several equally near anchors become candidates is left to `torch.topk`, as in the
    published implementation; of equal IoUs the first object wins.

    Memory: distances of 16 objects to the anchors of a level, 15 MB for an image of 800 x 1344
    pixels, whatever the number of objects.

    Args:
        topk: number of candidates per object and level. It counts anchors, not cells.
        min_inside: least distance of a center from the sides of the object, in pixels.

    Raises:
        ValueError: If `topk` is below 1.
    """

    def __init__(self, *, topk: int = 9, min_inside: float = 0.01):
        if topk < 1:
            raise ValueError(f"topk must be >= 1, got {topk}")
        self.topk, self.min_inside = topk, min_inside

    def __call__(
        self,
        anchors: LevelAnchors,
        objects: Instances,
        predictions: AnchorPredictions | None = None,
    ) -> Tensor:
        """Assign R anchors; see `Assigner`."""
        boxes = objects.gt_boxes.tensor
        if len(boxes) == 0 or len(anchors) == 0:
            return background(anchors)
        candidates = self._candidates(anchors, boxes)
        count, width = candidates.shape
        rows = candidates.flatten()
        owners = torch.arange(count, device=rows.device).repeat_interleave(
            width, output_size=len(rows)
        )
        iou = paired_box_iou(anchors.boxes[rows], boxes[owners])
        threshold = _threshold(iou.view(count, width))
        depth = depth_inside(anchors.centers[rows], boxes[owners])
        positive = (iou >= threshold[owners]) & (depth > self.min_inside)
        # No selection of the positives, whose number a GPU would have to tell.
        return largest_iou_wins(anchors, rows, owners, iou.where(positive, -1))

    def _candidates(self, anchors: LevelAnchors, boxes: Tensor) -> Tensor:
        """(G, C) rows of the candidates of each object."""
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        found, start = [], 0
        for points in anchors.centers.split(list(anchors.counts)):
            k, nearest = min(self.topk, len(points)), []
            for part in centers.split(OBJECTS_AT_ONCE):
                distance = (part[:, None] - points).pow(2).sum(-1).sqrt()
                nearest.append(distance.topk(k, dim=1, largest=False).indices)
            found.append(torch.cat(nearest) + start)
            start += len(points)
        return torch.cat(found, 1)


def _threshold(iou: Tensor) -> Tensor:
    """(G,) mean + unbiased standard deviation of the (G, C) candidates."""
    mean = iou.mean(1)
    return mean + iou.std(1) if iou.shape[1] > 1 else mean
