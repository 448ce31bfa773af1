"""One-to-one matching of predictions with objects.

Shape letters: Q queries, G objects, K classes.
"""

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from brloss_d2.losses import paired_box_giou
from brloss_d2.projects.co_detr.modeling.boxes import pixel_boxes, relative_boxes

UNMATCHED = -1

# Focal cost: weight of positives, exponent, and the number that keeps logarithms finite.
_ALPHA, _GAMMA, _EPS = 0.25, 2, 1e-12
# Cost of a prediction with NaN or infinity: above all others.
_MAX_COST = 1e6


@dataclass(frozen=True, kw_only=True)
class HungarianMatcher:
    """Match each object with one prediction at the least total cost (Carion et al., ECCV 2020).

    The cost of a pair is `cls_weight` x focal cost of the object's class + `l1_weight` x L1
    distance of the relative boxes - `giou_weight` x GIoU, in single precision. If several matchings
    cost the same, any of them is returned. Complexity: O(Q G) on the device of the predictions, and
    at most G^2 rows for the solver on the CPU.

    Predictions with NaN or infinity are matched last, so that a training that diverges is found by
    its loss and not here.

    Attributes:
        cls_weight: weight of the focal cost.
        l1_weight: weight of the L1 distance.
        giou_weight: weight of the GIoU.
        position_power: exponent with which the place of a box changes its score in the focal cost,
            times `((GIoU + 1) / 2)^position_power`, relative to the best pair of the image. 0 is
            none; 0.5 is that of Stable-DINO (Liu et al., ICCV 2023).
    """

    cls_weight: float = 2.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    position_power: float = 0.0

    @torch.no_grad()
    def __call__(
        self,
        logits: Tensor,
        boxes: Tensor,
        gt_boxes: Tensor,
        gt_classes: Tensor,
        image_size: tuple[int, int],
    ) -> Tensor:
        """Match the predictions of an image with its objects.

        Args:
            logits: (Q, K) class logits.
            boxes: (Q, 4) cxcywh relative to the image.
            gt_boxes: (G, 4) XYXY in pixels.
            gt_classes: (G,) classes in 0..K-1.
            image_size: height and width in pixels.

        Returns:
            (Q,) int64 index of the object of each prediction, or -1; `min(Q, G)` are matched.
        """
        matched = torch.full((len(logits),), UNMATCHED, device=logits.device)
        if len(gt_boxes) == 0:
            return matched
        cost = self.cost(logits, boxes, gt_boxes, gt_classes, image_size)
        rows = _candidates(cost)
        chosen, objects = linear_sum_assignment(cost[rows].cpu().numpy())
        chosen, objects = (torch.from_numpy(x).to(rows.device) for x in (chosen, objects))
        return matched.index_copy_(0, rows[chosen], objects)

    def cost(
        self,
        logits: Tensor,
        boxes: Tensor,
        gt_boxes: Tensor,
        gt_classes: Tensor,
        image_size: tuple[int, int],
    ) -> Tensor:
        """Compute the (Q, G) cost of every pair, always finite; arguments as in a call."""
        boxes, gt_boxes = boxes.float(), gt_boxes.float()
        scores = logits[:, gt_classes].float().sigmoid()
        distance = torch.cdist(boxes, relative_boxes(gt_boxes, image_size), p=1)
        # Unlike torchvision's, this GIoU is finite for boxes without area.
        shape = (len(boxes), len(gt_boxes), 4)
        pairs = (pixel_boxes(boxes, image_size)[:, None].expand(shape), gt_boxes.expand(shape))
        giou = paired_box_giou(*(x.reshape(-1, 4) for x in pairs)).view(shape[:2])
        if self.position_power:
            position = (giou.nan_to_num(nan=-1.0) + 1) / 2
            best = position.amax().clamp(min=_EPS) if position.numel() else 1.0
            scores = scores * (position / best) ** self.position_power
        # Focal loss of the score as a positive, less that as a negative.
        positive = _ALPHA * (1 - scores) ** _GAMMA * (scores + _EPS).log()
        negative = (1 - _ALPHA) * scores**_GAMMA * (1 - scores + _EPS).log()
        cost = self.cls_weight * (negative - positive)
        cost = cost + self.l1_weight * distance - self.giou_weight * giou
        return cost.nan_to_num(nan=_MAX_COST, posinf=_MAX_COST, neginf=_MAX_COST)


def _candidates(cost: Tensor) -> Tensor:
    """Rows, ascending, that contain an optimal matching: at most G^2 of them.

    An object that is matched with none of its G cheapest rows could move to one of them, since the
    other objects take at most G - 1.
    """
    count = min(cost.shape)
    return cost.topk(count, dim=0, largest=False, sorted=False).indices.unique()
