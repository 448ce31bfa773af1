"""Soft targets of the score-based losses that depend on more than the IoU of a row."""

import torch
from torch import Tensor

from brloss_d2.criteria.matched import MatchedPredictions
from brloss_d2.criteria.quality import PositiveQuality
from brloss_d2.losses.base import check_numbers

_EPS = 1e-8


class ScoreAndIoU(PositiveQuality):
    """Weighted geometric mean of score and IoU, the target of IA-BCE (Cai et al., BMVC 2024).

    `max(score^alpha IoU^(1 - alpha), floor)`, Align-DETR eq. 3, where the score is that of the
    row's own class. With `tau`, the target of all but the best row of an object is lowered by
    `exp(-rank / tau)`, rank 1 the second best.

    Args:
        alpha: exponent of the score in [0, 1].
        floor: smallest target before ranks, in [0, 1]; above 0 it keeps a positive one.
        tau: number of ranks over which the target falls to 1/e, > 0; None is no fall.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
        >>> logits, labels = torch.tensor([[0.0]]), torch.tensor([0])
        >>> ScoreAndIoU(alpha=0.5)(MatchedPredictions(logits, labels, boxes, boxes, num_classes=1))
        tensor([0.7071])
    """

    def __init__(self, *, alpha: float = 0.25, floor: float = 0.01, tau: float | None = None):
        super().__init__()
        check_numbers("in [0, 1]", alpha=alpha, floor=floor)
        if tau is not None:
            check_numbers("> 0", tau=tau)
        self.alpha, self.floor, self.tau = alpha, floor, tau

    @torch.no_grad()
    def forward(self, matched: MatchedPredictions) -> Tensor:
        """Return (P,) targets in [0, 1]."""
        iou = matched.localization_quality()
        target = matched.positive_scores**self.alpha * iou ** (1 - self.alpha)
        target = target.clamp(min=self.floor)
        if self.tau is None:
            return target
        order, place = sort_in_groups(-target, matched.objects)
        rank = torch.empty_like(place)
        rank[order] = place
        target = target * (-rank.to(target) / self.tau).exp()
        return target.clamp(min=torch.finfo(target.dtype).tiny)  # at 0 it would be a negative


class RelativeIoU(PositiveQuality):
    """IoU relative to the best of the image, of Stable-DINO (Liu et al., ICCV 2023).

    `IoU^power`, raised so that the best row of each image has 1. It is never exactly 0, which
    would stand for a negative.

    Args:
        power: exponent of the IoU, > 0.

    Raises:
        ValueError: If `power` is out of range.

    Example:
        >>> gt = torch.tensor([[0.0, 0.0, 8.0, 8.0]] * 2)
        >>> boxes = gt * torch.tensor([[1.0, 1.0, 1.0, 0.5], [1.0, 1.0, 1.0, 0.25]])
        >>> logits, labels = torch.zeros(2, 1), torch.tensor([0, 0])
        >>> RelativeIoU(power=1)(MatchedPredictions(logits, labels, boxes, gt, num_classes=1))
        tensor([1.0000, 0.5000])
    """

    def __init__(self, *, power: float = 2.0):
        super().__init__()
        check_numbers("> 0", power=power)
        self.power = power

    @torch.no_grad()
    def forward(self, matched: MatchedPredictions) -> Tensor:
        """Return (P,) targets in (0, 1]."""
        quality = matched.localization_quality() ** self.power
        num_images = matched.num_images * (matched.num_layers or 1)
        best = _largest(quality, matched.images, num_images)
        target = quality * (1 / (best + _EPS)).clamp(min=1)
        return target.clamp(min=torch.finfo(torch.float32).tiny, max=1)


class TaskAlignment(PositiveQuality):
    """Alignment of score and IoU relative to the best of the object: TOOD (Feng et al., ICCV 2021).

    With the metric `m = score^alpha IoU^beta` of a row, the target is `m / max m * max IoU`, the
    maxima over the rows of an object. Next to a target for `QualityFocalLoss` it is the weight of
    the boxes; `normalizer="targets"` goes with both.

    Args:
        alpha: exponent of the score, >= 0.
        beta: exponent of the IoU, >= 0.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
        >>> logits, labels = torch.tensor([[0.0]]), torch.tensor([0])
        >>> TaskAlignment()(MatchedPredictions(logits, labels, boxes, boxes, num_classes=1))
        tensor([1.0000])
    """

    def __init__(self, *, alpha: float = 1.0, beta: float = 6.0):
        super().__init__()
        check_numbers(">= 0", alpha=alpha, beta=beta)
        self.alpha, self.beta = alpha, beta

    @torch.no_grad()
    def forward(self, matched: MatchedPredictions) -> Tensor:
        """Return (P,) targets in [0, 1]."""
        iou = matched.localization_quality()
        metric, objects = matched.positive_scores**self.alpha * iou**self.beta, matched.objects
        count = len(iou)
        best_metric, best_iou = (_largest(x, objects, count) for x in (metric, iou))
        return metric / (best_metric + 1e-7) * best_iou


def sort_in_groups(values: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Order by group and ascending value, stably.

    Args:
        values: (n,) values.
        groups: (n,) int64 group of each.

    Returns:
        `(order, place)`: (n,) indices in the new order, and (n,) place of each of them in its
        group, from 0.
    """
    order = values.argsort(stable=True)
    order = order[groups[order].argsort(stable=True)]
    ordered = groups[order]
    start = torch.searchsorted(ordered, ordered)
    return order, torch.arange(len(order), device=order.device) - start


def _largest(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """Return (n,) for each value >= 0 the largest of its group."""
    return values.new_zeros(count).scatter_reduce_(0, groups, values, "amax")[groups]
