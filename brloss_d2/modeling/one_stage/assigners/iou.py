"""Assignment by the largest IoU, as in the published detectors."""

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
    """Assign every anchor the object that it overlaps most, if the IoU is high enough.

    Memory: some (G, R) matrices, the IoU among them; 0.8 GB at the peak for 500 objects and the
    67 thousand anchors of an image of 800 x 1344 pixels.

    Args:
        matcher: rule that turns IoU into positives, negatives and ignored anchors.
    """

    def __init__(self, matcher: MaxIoUMatcher):
        self.matcher = matcher

    def __call__(
        self,
        anchors: LevelAnchors,
        objects: Instances,
        predictions: AnchorPredictions | None = None,
    ) -> Tensor:
        """Assign R anchors; see `Assigner`."""
        iou = retry_if_cuda_oom(pairwise_iou)(objects.gt_boxes, Boxes(anchors.boxes))
        matches, labels = (x.to(anchors.boxes.device) for x in self.matcher(iou))
        assigned = torch.where(labels == 1, matches, BACKGROUND)
        return torch.where(labels == -1, IGNORED, assigned)
