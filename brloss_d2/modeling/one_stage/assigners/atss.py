"""Adaptive training sample selection."""

import torch
from detectron2.structures import Instances
from torch import Tensor

from brloss_d2.losses import paired_box_iou
from brloss_d2.modeling.one_stage.assigners.base import (
    AnchorPredictions,
    Assigner,
    LevelAnchors,
    background,
)

# Objects handled at once: bounds the memory for distances to every anchor.
_OBJECTS_AT_ONCE = 16


class ATSSAssigner(Assigner):
    """Adaptive training sample selection (Zhang et al., CVPR 2020).

    On each level the `topk` anchors nearest to the center of an object are its candidates. Those
    become positive whose IoU reaches mean + standard deviation of all its candidates and whose
    center lies inside the object. An anchor that is positive for several objects goes to the one it
    overlaps most. There is no ignored zone.

    Which of several equally near anchors become candidates is left to `torch.topk`, as in the
    published implementation; of equal IoUs the first object wins.

    Memory: distances of 16 objects to the anchors of a level, 15 MB for a 800 x 1344 image however
    many objects there are.

    Args:
        topk: candidates an object and level. It counts anchors, not cells.
        min_inside: how far inside the object a center has to be, in pixels.
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
        gt_boxes = objects.gt_boxes.tensor
        if len(gt_boxes) == 0 or len(anchors) == 0:
            return background(anchors)
        candidates = self._candidates(anchors, gt_boxes)
        count, width = candidates.shape
        rows = candidates.flatten()
        owners = torch.arange(count, device=rows.device).repeat_interleave(width)
        iou = paired_box_iou(anchors.boxes[rows], gt_boxes[owners])
        threshold = _threshold(iou.view(count, width))
        inside = _depth(anchors.centers[rows], gt_boxes[owners]) > self.min_inside
        positive = (iou >= threshold[owners]) & inside
        return _largest_wins(
            background(anchors), rows[positive], owners[positive], iou[positive], count
        )

    def _candidates(self, anchors: LevelAnchors, gt_boxes: Tensor) -> Tensor:
        """(G, C) rows of the candidates of each object."""
        centers = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
        counts = torch.bincount(anchors.levels).tolist()
        found, start = [], 0
        for points in anchors.centers.split(counts):
            k = min(self.topk, len(points))
            nearest = [_nearest(part, points, k) for part in centers.split(_OBJECTS_AT_ONCE)]
            found.append(torch.cat(nearest) + start)
            start += len(points)
        return torch.cat(found, 1)


def _nearest(centers: Tensor, points: Tensor, k: int) -> Tensor:
    """(G, k) the points nearest to each center."""
    distance = (centers[:, None] - points).pow(2).sum(-1).sqrt()
    return distance.topk(k, dim=1, largest=False).indices


def _threshold(iou: Tensor) -> Tensor:
    """(G,) mean + unbiased standard deviation of the (G, C) candidates."""
    mean = iou.mean(1)
    return mean + iou.std(1) if iou.shape[1] > 1 else mean


def _depth(centers: Tensor, boxes: Tensor) -> Tensor:
    """(C,) distance in pixels to the nearest side, negative outside."""
    return torch.cat([centers - boxes[:, :2], boxes[:, 2:] - centers], 1).amin(1)


def _largest_wins(
    assigned: Tensor, rows: Tensor, owners: Tensor, iou: Tensor, num_objects: int
) -> Tensor:
    best = iou.new_full(assigned.shape, -1.0).scatter_reduce_(0, rows, iou, "amax")
    wins = iou == best[rows]
    first = torch.full_like(assigned, num_objects)
    first.scatter_reduce_(0, rows[wins], owners[wins], "amin")
    return torch.where(first < num_objects, first, assigned)
