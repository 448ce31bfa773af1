"""One-to-one matching of predictions and objects.

Shapes: Q queries, G objects, K classes.
"""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from brloss_d2.losses import paired_box_giou
from brloss_d2.projects.co_detr.modeling.boxes import pixel_boxes, relative_boxes

UNMATCHED = -1

# Focal loss as a cost: weight of positives, exponent, and what keeps logarithms finite.
_ALPHA, _GAMMA, _EPS = 0.25, 2, 1e-12
# Of a prediction that is not a number: dearer than any other.
_NEVER = 1e6


class HungarianMatcher:
    """Give every object the prediction that makes the total cost least (Carion et al., ECCV 2020).

    The cost of a pair is `cls_weight` x focal cost of the object's class + `l1_weight` x L1
    distance of the relative boxes - `giou_weight` x GIoU, in single precision. Where total costs
    are equal, which of the solutions is returned is not specified.

    Predictions that are not numbers are matched last, so that a training that has diverged is found
    out by its loss and not here.

    Cost: O(Q G) on the device of the predictions; no more than G^2 rows go to the solver on the
    CPU.

    Args:
        cls_weight: of the focal cost.
        l1_weight: of the distance.
        giou_weight: of the overlap.
    """

    def __init__(
        self, *, cls_weight: float = 2.0, l1_weight: float = 5.0, giou_weight: float = 2.0
    ):
        self.cls_weight, self.l1_weight, self.giou_weight = cls_weight, l1_weight, giou_weight

    @torch.no_grad()
    def __call__(
        self,
        logits: Tensor,
        boxes: Tensor,
        gt_boxes: Tensor,
        gt_classes: Tensor,
        image_size: tuple[int, int],
    ) -> Tensor:
        """Match the predictions for an image with its objects.

        Args:
            logits: (Q, K) class logits.
            boxes: (Q, 4) cxcywh relative to the image.
            gt_boxes: (G, 4) XYXY in pixels.
            gt_classes: (G,) in 0..K-1.
            image_size: height and width in pixels.

        Returns:
            (Q,) int64, the object of each prediction, or -1. `min(Q, G)` of them have one.
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
        """(Q, G) cost of every pair, always finite. Arguments as in a call."""
        boxes, gt_boxes = boxes.float(), gt_boxes.float()
        cls_cost = _focal_cost(logits[:, gt_classes].float())
        distance = torch.cdist(boxes, relative_boxes(gt_boxes, image_size), p=1)
        giou = _pairwise_giou(pixel_boxes(boxes, image_size), gt_boxes)
        cost = self.cls_weight * cls_cost + self.l1_weight * distance - self.giou_weight * giou
        return cost.nan_to_num(nan=_NEVER, posinf=_NEVER, neginf=_NEVER)

    def __repr__(self) -> str:
        return (
            f"HungarianMatcher(cls_weight={self.cls_weight}, l1_weight={self.l1_weight}, "
            f"giou_weight={self.giou_weight})"
        )


def _focal_cost(logits: Tensor) -> Tensor:
    """Focal loss of the score as that of a positive, less that as of a negative."""
    scores = logits.sigmoid()
    positive = _ALPHA * (1 - scores) ** _GAMMA * (scores + _EPS).log()
    negative = (1 - _ALPHA) * scores**_GAMMA * (1 - scores + _EPS).log()
    return negative - positive


def _pairwise_giou(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """(Q, G); unlike torchvision's it is finite for boxes of no area."""
    shape = (len(boxes), len(gt_boxes), 4)
    pairs = boxes[:, None].expand(shape), gt_boxes.expand(shape)
    return paired_box_giou(*(pair.reshape(-1, 4) for pair in pairs)).view(shape[:2])


def _candidates(cost: Tensor) -> Tensor:
    """The rows, ascending, among which a best matching is to be found: no more than G^2 of them.

    An object that is matched with none of its G cheapest rows could change to one of these, since
    the other objects take G - 1 of them at most.
    """
    count = min(cost.shape)
    return cost.topk(count, dim=0, largest=False, sorted=False).indices.unique()
