"""One-to-one matching of predictions with objects.

Shape letters: D decoder layers, N images, Q queries, G objects of an image, T objects of all
images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from brloss_d2.losses import paired_box_giou
from brloss_d2.projects.co_detr.modeling.boxes import (
    image_scales,
    pixel_boxes,
    relative_boxes,
)
from brloss_d2.utils.devices import upload

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
    cost the same, any of them is returned. Complexity: O(D T Q) on the device of the predictions;
    of each object the costs of at most as many queries as an image has objects go to the solver on
    the CPU, in one copy.

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
    def __call__(self, logits: Tensor, boxes: Tensor, objects: Sequence[Instances]) -> Tensor:
        """Match the predictions of every layer for each image with its objects.

        Args:
            logits: (D, N, Q, K) class logits.
            boxes: (D, N, Q, 4) cxcywh relative to the image.
            objects: objects per image, with `gt_boxes` and `gt_classes`.

        Returns:
            (D, N, Q) int64 index of the object in its image for each prediction, or -1, on the CPU;
            `min(Q, G)` are matched in each layer.
        """
        matched = torch.full(logits.shape[:3], UNMATCHED)
        counts = [len(x) for x in objects]
        if not sum(counts) or not matched.numel():
            return matched
        # An object that is matched with none of its G cheapest queries could move to one of them,
        # since the other objects take at most G - 1.
        count = min(max(counts), logits.shape[2])
        best = self.cost(logits, boxes, objects).topk(count, largest=False, sorted=False)
        # Both are exact in double precision: one copy, for which the host waits.
        pairs = torch.stack([best.values.double(), best.indices.double()]).cpu().numpy()
        for image, columns in enumerate(np.split(pairs, np.cumsum(counts)[:-1], axis=2)):
            for layer in range(len(matched)):
                queries, numbers = _solve(*columns[:, layer])
                matched[layer, image].numpy()[queries] = numbers
        return matched

    def cost(self, logits: Tensor, boxes: Tensor, objects: Sequence[Instances]) -> Tensor:
        """Compute the cost of every pair, always finite; arguments as in a call.

        Returns:
            (D, T, Q) costs, objects in the order of the images.
        """
        boxes = boxes.float()
        counts, sizes = torch.tensor([len(x) for x in objects]), [x.image_size for x in objects]
        image = upload(torch.arange(len(objects)).repeat_interleave(counts), boxes.device)
        scales = image_scales(sizes, boxes)[:, None]
        gt_boxes = Boxes.cat([x.gt_boxes for x in objects]).tensor.float()[:, None]
        scores = logits.mT[:, image, torch.cat([x.gt_classes for x in objects])].float().sigmoid()
        relative = relative_boxes(gt_boxes, scales[image])
        distance = torch.cdist(boxes[:, image], relative, p=1).squeeze(-1)
        # Unlike torchvision's, this GIoU is finite for boxes without area.
        pixels = pixel_boxes(boxes, scales)[:, image]
        pairs = (x.reshape(-1, 4) for x in (pixels, gt_boxes.expand_as(pixels)))
        giou = paired_box_giou(*pairs).view_as(scores)
        if self.position_power:
            position = (giou.nan_to_num(nan=-1.0) + 1) / 2
            best = position.new_full((len(position), len(objects)), _EPS)
            best = best.index_reduce(1, image, position.amax(-1), "amax")[:, image, None]
            scores = scores * (position / best) ** self.position_power
        # Focal loss of the score as a positive, less that as a negative.
        positive = _ALPHA * (1 - scores) ** _GAMMA * (scores + _EPS).log()
        negative = (1 - _ALPHA) * scores**_GAMMA * (1 - scores + _EPS).log()
        cost = self.cls_weight * (negative - positive)
        cost = cost + self.l1_weight * distance - self.giou_weight * giou
        return cost.nan_to_num(nan=_MAX_COST, posinf=_MAX_COST, neginf=_MAX_COST)


def _solve(costs: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Match one image in one layer.

    Args:
        costs: (G, C) costs of the cheapest queries of each object.
        queries: (G, C) which queries these are.

    Returns:
        Matched queries and their objects.
    """
    rows, columns = np.unique(queries, return_inverse=True)
    table = np.full((len(costs), len(rows)), np.inf)
    np.put_along_axis(table, columns.reshape(costs.shape), costs, 1)
    numbers, chosen = linear_sum_assignment(table)
    return rows[chosen].astype(np.int64), numbers
