"""Correlation Loss: an auxiliary term for any classification loss."""

import torch
from torch import Tensor

from brloss_d2.losses.base import ConfiguredModule, at_least_float32, check_numbers, check_tensors

_KINDS = ("concordance", "pearson")
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

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> loss = CorrelationLoss(kind="pearson", weight=1.0)
        >>> scores, iou = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.9, 0.7, 0.5])
        >>> loss(scores, iou)
        tensor(2.)
    """

    def __init__(self, *, kind: str = "concordance", weight: float = 0.2):
        super().__init__()
        if kind not in _KINDS:
            raise ValueError(f"kind must be one of {_KINDS}, got {kind!r}")
        check_numbers(">= 0", weight=weight)
        self.kind, self.weight = kind, weight

    def forward(self, scores: Tensor, iou: Tensor) -> Tensor:
        """Correlate the scores of positives with the IoU of their boxes.

        Args:
            scores: (P,) scores at the positives' own classes, in [0, 1], differentiable.
            iou: (P,) IoU in [0, 1], taken as constant.

        Returns:
            () weighted loss; 0 and attached to the graph if there are fewer than two positives, or
            all scores or all IoUs are equal.
        """
        check_tensors(scores=scores, iou=iou)
        if scores.ndim != 1 or scores.shape != iou.shape:
            raise ValueError(
                f"scores and iou must both be (P,), got {tuple(scores.shape)} and "
                f"{tuple(iou.shape)}"
            )
        a = at_least_float32(scores)
        b = iou.detach().to(a.dtype).clamp(min=_MIN_IOU)
        zero = a.sum() * 0  # NaN if a score is
        if len(a) < 2:
            return zero
        varied = (a.amax() > a.amin()) & (b.amax() > b.amin())
        # The deviations of equal values are rounding: others, without gradient, take their place.
        a, b = (torch.where(varied, x, torch.arange(len(x)).to(x)) for x in (a, b))
        da, db = a - a.mean(), b - b.mean()
        if self.kind == "pearson":
            correlation = (da * db).sum() / (da.norm() * db.norm())
        else:
            gap = (len(a) - 1) * (a.mean() - b.mean()).square()
            correlation = 2 * (da * db).sum() / (da.square().sum() + db.square().sum() + gap)
        return torch.where(varied, self.weight * (1 - correlation), 0.0) + zero
