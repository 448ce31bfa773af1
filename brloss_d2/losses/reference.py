"""Ranking losses written from their definitions: dense, float64, O(P * (P + N)), without tricks.

The oracle of the tests, and the place to read what a loss means. Notation: `s` logits, `P`
positives (label 1), `N` negatives (label 0), all other entries ignored, `y` quality and `E`
localization error of a positive, and the ramp of half-width `delta`

    H(x) = clip(x / (2 delta) + 1/2, 0, 1),   or 1[x >= 0] for delta = 0.

Each function returns `(values, gradients)`: dictionaries of a 0-dim tensor and an `(M,)` tensor
per loss term. Gradients are the identity updates of the papers (Chen et al. 2019, eq. 10; Oksuz et
al. 2021, eq. 5-6), not derivatives of the values.
"""

import torch
from torch import Tensor

from brloss_d2.losses.alrp import MIN_FALSE_POSITIVES
from brloss_d2.losses.rank_sort import SORT_MIN_MASS
from brloss_d2.ops.dense import ramp

Terms = tuple[dict[str, Tensor], dict[str, Tensor]]


def _split(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    s = logits.detach().double()
    pos, neg = (labels == 1).nonzero().squeeze(1), (labels == 0).nonzero().squeeze(1)
    return s[pos], s[neg], pos, neg


def _assemble(logits: Tensor, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    gradient = torch.zeros(len(logits), dtype=torch.float64, device=logits.device)
    for index, values in parts:
        gradient[index] += values
    return gradient


def _average_precision(
    logits: Tensor, labels: Tensor, delta: float, own_term_one: bool, interpolated: bool
) -> tuple[Tensor, Tensor]:
    p, n, pos, neg = _split(logits, labels)
    if len(p) == 0:
        return logits.new_zeros((), dtype=torch.float64), _assemble(logits, [])
    h_neg = ramp(n[None, :] - p[:, None], delta)
    h_pos = ramp(p[None, :] - p[:, None], delta)
    if own_term_one:
        h_pos.fill_diagonal_(1.0)
    fp = h_neg.sum(1)
    error = fp / (h_pos.sum(1) + fp)
    if interpolated:
        not_above = p[None, :] <= p[:, None]
        error = torch.where(not_above, error[None, :], torch.inf).amin(1)
    share = torch.where(fp > 0, error / fp, 0.0)
    parts = [(pos, -error / len(p)), (neg, share @ h_neg / len(p))]
    return error.mean(), _assemble(logits, parts)


def ap(logits: Tensor, labels: Tensor, *, delta: float = 1.0) -> Terms:
    """AP Loss (Chen et al., CVPR 2019) with interpolated precision, as published."""
    value, gradient = _average_precision(logits, labels, delta, True, True)
    return {"loss_rank": value}, {"loss_rank": gradient}


def _bucketed_average_precision(
    logits: Tensor, labels: Tensor, delta: float
) -> tuple[Tensor, Tensor]:
    p, n, pos, neg = _split(logits, labels)
    if len(p) == 0:
        return logits.new_zeros((), dtype=torch.float64), _assemble(logits, [])
    # A bucket holds the negatives below which the same number of positives lie; a negative that
    # ties with a positive ranks above it (the published code leaves it to the sort).
    above = (p[None, :] <= n[:, None]).sum(1)
    above[n < p.min() - delta] = -1
    kept = above[above >= 0].unique()
    members = [n[above == b] for b in kept]
    mean = p.new_tensor([m.min() + (m - m.min()).mean() for m in members])
    size = p.new_tensor([float(len(m)) for m in members])
    bucket = torch.full_like(above, -1)  # -1: dropped
    for i, b in enumerate(kept):
        bucket[above == b] = i
    h_bucket = ramp(mean[None, :] - p[:, None], delta)
    fp = h_bucket @ size
    error = fp / (ramp(p[None, :] - p[:, None], delta).sum(1) + fp)
    share = torch.where(fp > 0, error / fp, 0.0)
    member = torch.cat([share @ h_bucket / len(p), p.new_zeros(1)])[bucket]
    return error.mean(), _assemble(logits, [(pos, -error / len(p)), (neg, member)])


def bap(logits: Tensor, labels: Tensor, *, delta: float = 1.0) -> Terms:
    """Bucketed AP Loss (Yavuz et al., ECCV 2024): own term H(0), no interpolation."""
    value, gradient = _bucketed_average_precision(logits, labels, delta)
    return {"loss_rank": value}, {"loss_rank": gradient}


def alrp(logits: Tensor, labels: Tensor, error: Tensor, *, delta: float = 1.0) -> Terms:
    """aLRP Loss (Oksuz et al., NeurIPS 2020); `error` (P,) are localization errors >= 0.

    `gradients["loss_box"]` is (P,): the derivative with respect to `error`, ranks held fixed.
    """
    p, n, pos, neg = _split(logits, labels)
    if len(p) == 0:
        zero = logits.new_zeros((), dtype=torch.float64)
        gradients = {"loss_rank": _assemble(logits, []), "loss_box": zero.new_zeros(0)}
        return {"loss_rank": zero, "loss_box": zero.clone()}, gradients
    e = error.detach().double()
    h_neg = ramp(n[None, :] - p[:, None], delta)
    h_other = ramp(p[None, :] - p[:, None], delta).fill_diagonal_(0.0)
    fp = h_neg.sum(1)
    rank = 1.0 + h_other.sum(1) + fp
    counted = fp > MIN_FALSE_POSITIVES
    total = torch.where(counted, (fp + h_other @ e) / rank, 0.0)
    share = torch.where(counted, total / fp, 0.0)
    at_least = (p[None, :] >= p[:, None]).double()
    box_gradient = (at_least / rank[:, None]).mean(0)
    gradient = _assemble(logits, [(pos, -total / len(p)), (neg, share @ h_neg / len(p))])
    values = {"loss_rank": (fp / rank).mean(), "loss_box": (box_gradient * e).sum()}
    return values, {"loss_rank": gradient, "loss_box": box_gradient}


def _sorting(
    logits: Tensor, labels: Tensor, quality: Tensor, delta: float
) -> tuple[Tensor, Tensor]:
    p, _, pos, _ = _split(logits, labels)
    if len(p) == 0:
        return logits.new_zeros((), dtype=torch.float64), _assemble(logits, [])
    y = quality.detach().double()
    h = ramp(p[None, :] - p[:, None], delta)
    not_worse = h * (y[None, :] >= y[:, None])
    worse = h * (y[None, :] < y[:, None])
    current = h @ (1 - y) / h.sum(1)
    target = not_worse @ (1 - y) / not_worse.sum(1)
    mass = worse.sum(1)
    error = current - target
    counted = mass > SORT_MIN_MASS
    share = torch.where(counted, error / mass, 0.0)
    gradient = (share @ worse - torch.where(counted, error, 0.0)) / len(p)
    return error.mean(), _assemble(logits, [(pos, gradient)])


def rank_sort(logits: Tensor, labels: Tensor, quality: Tensor, *, delta: float = 0.5) -> Terms:
    """Rank & Sort Loss (Oksuz et al., ICCV 2021)."""
    rank, rank_gradient = _average_precision(logits, labels, delta, False, False)
    sort, sort_gradient = _sorting(logits, labels, quality, delta)
    gradients = {"loss_rank": rank_gradient, "loss_sort": sort_gradient}
    return {"loss_rank": rank, "loss_sort": sort}, gradients


def bucketed_rank_sort(
    logits: Tensor, labels: Tensor, quality: Tensor, *, delta: float = 0.5
) -> Terms:
    """Bucketed Rank & Sort Loss (Yavuz et al., ECCV 2024)."""
    rank, rank_gradient = _bucketed_average_precision(logits, labels, delta)
    sort, sort_gradient = _sorting(logits, labels, quality, delta)
    gradients = {"loss_rank": rank_gradient, "loss_sort": sort_gradient}
    return {"loss_rank": rank, "loss_sort": sort}, gradients
