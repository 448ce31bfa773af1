"""Assignment by the largest IoU, as the published detectors do it."""

import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor

from brloss_d2.modeling.matching import MaxIoUMatcher
from brloss_d2.modeling.one_stage.assigners.base import (
    BACKGROUND,
    IGNORED,
    AnchorPredictions,
    Assigner,
    LevelAnchors,
)


class MaxIoUAssigner(Assigner):
    """Every anchor goes to the object it overlaps most, if it does so well enough.

    Memory: some (G, R) matrices, the IoU among them; for 500 objects and the 67 thousand anchors of
    a 800 x 1344 image 0.8 GB at the peak.

    Args:
        matcher: decides by the IoU.
    """

    def __init__(self, matcher: MaxIoUMatcher):
        self.matcher = matcher

    def __call__(
        self,
        anchors: LevelAnchors,
        objects: Instances,
        predictions: AnchorPredictions | None = None,
    ) -> Tensor:
        iou = retry_if_cuda_oom(pairwise_iou)(objects.gt_boxes, Boxes(anchors.boxes))
        matches, labels = (x.to(anchors.boxes.device) for x in self.matcher(iou))
        assigned = torch.where(labels == 1, matches, BACKGROUND)
        return torch.where(labels == -1, IGNORED, assigned)
