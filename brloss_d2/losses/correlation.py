"""Correlation Loss: an auxiliary term for any classification loss."""

import torch
from torch import Tensor

from brloss_d2.losses.base import ConfiguredModule, at_least_float32, check_numbers, check_tensors

_KINDS = ("concordance", "pearson")
_GROUPS = ("pool", "image", "level")
_BOUNDS = ("amin", "amax")
_MIN_IOU = 1e-6


class CorrelationLoss(ConfiguredModule):
    """Correlation Loss (Kahraman et al., AAAI 2023): 1 - correlation of scores and IoU.

    A "concordance" of 1 (Lin's coefficient) makes the scores equal to the IoU, a correlation of
    "pearson" of 1 makes them a rising line of it. The gradient of the latter does not depend on
    the scale of the scores, so that it is large if they are all nearly alike, as at the start.

    The published configs name a soft Spearman correlation too. Their soft ranks of strength 1 are,
    for values in [0, 1], the values plus a constant, so that it equals "pearson" but for rounding.

    Args:
        kind: "concordance" or "pearson".
        weight: factor of the loss, >= 0.
        per: what is correlated by itself: all positives of a "pool" (the batch of a process, or its
            ranking pool), those of each "image", or those of each pyramid "level", as published for
            RetinaNet. Of several, the mean over those with at least two positives counts.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> loss = CorrelationLoss(kind="pearson", weight=1.0)
        >>> scores, iou = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.9, 0.7, 0.5])
        >>> loss(scores, iou)
        tensor(2.)
    """

    def __init__(self, *, kind: str = "concordance", weight: float = 0.2, per: str = "pool"):
        super().__init__()
        for name, value, known in (("kind", kind, _KINDS), ("per", per, _GROUPS)):
            if value not in known:
                raise ValueError(f"{name} must be one of {known}, got {value!r}")
        check_numbers(">= 0", weight=weight)
        self.kind, self.weight, self.per = kind, weight, per

    def forward(self, scores: Tensor, iou: Tensor, groups: Tensor | None = None) -> Tensor:
        """Correlate the scores of positives with the IoU of their boxes.

        Args:
            scores: (P,) scores at the positives' own classes, in [0, 1], differentiable.
            iou: (P,) IoU in [0, 1], taken as constant.
            groups: (P,) int64 group of each positive, in [0, P); None is one group.

        Returns:
            () weighted loss; 0 and attached to the graph if no group has two positives. A group
            whose scores or IoUs are all equal has the loss 0.
        """
        groups = torch.zeros_like(scores, dtype=torch.int64) if groups is None else groups
        check_tensors(scores=scores, iou=iou, groups=groups)
        if scores.ndim != 1 or scores.shape != iou.shape or scores.shape != groups.shape:
            raise ValueError(
                f"scores, iou and groups must all be (P,), got {tuple(scores.shape)}, "
                f"{tuple(iou.shape)} and {tuple(groups.shape)}"
            )
        a = at_least_float32(scores)
        b = iou.detach().to(a.dtype).clamp(min=_MIN_IOU)

        def total(x: Tensor) -> Tensor:
            return x.new_zeros(len(x)).index_add(0, groups, x)

        count = total(torch.ones_like(a))
        mean_a, mean_b = total(a) / count.clamp(min=1), total(b) / count.clamp(min=1)
        da, db = a - mean_a[groups], b - mean_b[groups]
        aa, bb, ab = total(da * da), total(db * db), total(da * db)
        # The deviations of equal values are rounding.
        varied = _differ(a, groups) & _differ(b, groups) & (aa > 0) & (bb > 0)
        if self.kind == "pearson":
            correlation = ab / (aa.where(varied, 1).sqrt() * bb.where(varied, 1).sqrt())
        else:
            gap = (count - 1) * (mean_a - mean_b).square()
            correlation = 2 * ab / (aa + bb + gap).where(varied, 1)
        losses = (1 - correlation).where(varied, 0)
        loss = losses.sum() / (count >= 2).sum().clamp(min=1)
        return self.weight * loss + a.sum() * 0  # NaN if a score is


def _differ(x: Tensor, groups: Tensor) -> Tensor:
    """Return (P,) bool, whether the values of each group differ."""
    x, none = x.detach(), torch.zeros_like(x)
    lowest, highest = (none.scatter_reduce(0, groups, x, f, include_self=False) for f in _BOUNDS)
    return highest > lowest
