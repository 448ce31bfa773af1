"""Assignment by score and predicted box together."""

import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor

from brloss_d2.losses.base import at_least_float32, check_numbers
from brloss_d2.modeling.one_stage.assigners.base import (
    OBJECTS_AT_ONCE,
    AnchorPredictions,
    Assigner,
    LevelAnchors,
    background,
    depth_inside,
    largest_iou_wins,
)


class TaskAlignedAssigner(Assigner):
    """Task-aligned assignment (Feng et al., ICCV 2021, TOOD).

    Candidates of an object are the `topk` anchors of all levels with the largest metric
    `score^alpha IoU^beta` above 0; the score is that of the object's class, the IoU that of the
    predicted box. Those become positive whose center lies inside the object. An anchor that is
    positive for several objects goes to the one that its predicted box overlaps most. No anchor is
    ignored.

    An object may have no positive, above all at the start. TOOD trains the first 4 of 12
    epochs with `ATSSAssigner` and focal loss.

    Memory: comparisons of 16 objects with all anchors, whatever the number of objects.

    Args:
        topk: number of candidates per object, >= 1.
        alpha: exponent of the score, >= 0.
        beta: exponent of the IoU, >= 0.
        min_inside: least distance of a center from the sides of the object, in pixels.

    Raises:
        ValueError: If a number is out of range.
    """

    needs_predictions = True

    def __init__(
        self, *, topk: int = 13, alpha: float = 1.0, beta: float = 6.0, min_inside: float = 0.01
    ):
        check_numbers(">= 1", topk=topk)
        check_numbers(">= 0", alpha=alpha, beta=beta, min_inside=min_inside)
        self.topk, self.alpha, self.beta, self.min_inside = topk, alpha, beta, min_inside

    @torch.no_grad()
    def __call__(
        self,
        anchors: LevelAnchors,
        objects: Instances,
        predictions: AnchorPredictions | None = None,
    ) -> Tensor:
        """Assign R anchors; see `Assigner`.

        Raises:
            ValueError: If there are no predictions.
        """
        predictions = self.required(predictions)
        if len(objects) == 0 or len(anchors) == 0:
            return background(anchors)
        found = []
        for first in range(0, len(objects), OBJECTS_AT_ONCE):
            part = objects[first : first + OBJECTS_AT_ONCE]
            rows, iou = self._claims(anchors, part, predictions)
            owners = torch.arange(len(part), device=rows.device)[:, None].expand_as(rows) + first
            claimed = iou >= 0
            found.append((rows[claimed], owners[claimed], iou[claimed]))
        return largest_iou_wins(anchors, *map(torch.cat, zip(*found, strict=True)))

    def _claims(
        self, anchors: LevelAnchors, objects: Instances, predictions: AnchorPredictions
    ) -> tuple[Tensor, Tensor]:
        """(G, k) rows that each object claims, and (G, k) their IoU; -1 if it does not."""
        iou = pairwise_iou(objects.gt_boxes, Boxes(predictions.boxes))
        scores = at_least_float32(predictions.logits[:, objects.gt_classes]).sigmoid().T
        metric = scores**self.alpha * iou**self.beta
        best, rows = metric.topk(min(self.topk, len(anchors)), dim=1)
        depth = depth_inside(anchors.centers[rows], objects.gt_boxes.tensor[:, None])
        claimed = (best > 0) & (depth > self.min_inside)
        return rows, iou.gather(1, rows).masked_fill(~claimed, -1.0)
