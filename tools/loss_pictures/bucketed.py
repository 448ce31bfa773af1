"""What the bucketed losses BAP and BRS do to the negatives."""

from itertools import pairwise

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from brloss_d2.losses import bucketed_ap_loss, bucketed_rank_sort_loss, rank_sort_loss
from brloss_d2.plotting.figures import tidy
from loss_pictures.scene import (
    BLACK,
    BLUE,
    GRAY,
    LABELS,
    LOGITS,
    NEGATIVES,
    ORANGE,
    POSITIVES,
    RANGE,
    compared,
    gradient,
    legend,
    mark_decisions,
    movement,
    stacked,
)

DELTA = 1.0  # of BAP


def draw_bap() -> Figure:
    """The buckets with their prototypes, and the gradients with and without them."""
    figure, (top, bottom) = stacked(2)
    _buckets(top)
    legend(top)

    def exact(*arguments: Tensor) -> dict[str, Tensor]:
        return rank_sort_loss(*arguments, delta=DELTA)

    without = gradient(exact, "loss_rank", LOGITS, LABELS, torch.ones_like(POSITIVES))
    bap = gradient(bucketed_ap_loss, "loss_rank", LOGITS, LABELS)
    movement(bottom, "The negatives of a bucket all fall alike", bap, without)
    legend(bottom, handles=compared("without\nbuckets", "BAP"))
    return figure


def _buckets(axes: Axes) -> None:
    reach = float(POSITIVES.min()) - DELTA
    edges = sorted([reach, *POSITIVES.tolist(), RANGE[1]])
    for k, (low, high) in enumerate(pairwise(edges)):
        axes.axvspan(low, high, color=GRAY, alpha=0.12 if k % 2 else 0.25, linewidth=0)
        members = NEGATIVES[(low <= NEGATIVES) & (high > NEGATIVES)]
        mean, size = float(members.mean()), len(members)
        axes.vlines(mean, 0, size, color=BLACK, linewidth=1)
        label = None if k else "prototype"
        axes.plot([mean], [size], "D", color=BLACK, ms=7, label=label)
        axes.text(mean, size + 0.25, f"$n_b = {size}$", ha="center", fontsize=9)
    axes.text((RANGE[0] + reach) / 2, 1.5, "out of\nreach", ha="center", color=GRAY)
    mark_decisions(axes)
    title = "The negatives between two positives act as one prototype: their mean, $n_b$ times"
    tidy(axes, title=title, ylabel="members $n_b$", ylim=(0, 3.4), yticks=range(4))


def draw_brs() -> Figure:
    """The negatives' gradient of RS and BRS with few and many positives."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharey=True, layout="constrained")
    for ax, count in zip(axes, (3, 10, 100), strict=True):
        _staircase(ax, count)
    axes[0].set_ylabel("gradient of a negative,\nshare of the largest of RS")
    axes[0].legend(loc="upper left")
    return figure


def _normal(count: int, mean: float) -> Tensor:
    """Evenly spaced quantiles of N(mean, 1), ascending."""
    levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return mean + torch.special.ndtri(levels)


def _staircase(axes: Axes, count: int) -> None:
    negatives, positives = _normal(2000, 0.0), _normal(count, 1.0)
    logits = torch.cat([negatives, positives])
    labels = torch.tensor([0] * len(negatives) + [1] * count)
    quality = torch.ones(count, dtype=torch.float64)
    exact, bucketed = (
        gradient(loss, "loss_rank", logits, labels, quality)[: len(negatives)]
        for loss in (rank_sort_loss, bucketed_rank_sort_loss)
    )
    error = float((bucketed - exact).norm() / exact.norm())
    axes.plot(negatives, bucketed / exact.max(), color=ORANGE, linewidth=2, label="BRS")
    axes.plot(negatives, exact / exact.max(), "--", color=BLACK, linewidth=1.4, label="RS")
    style = {"color": BLUE, "ms": 11, "clip_on": False}
    axes.plot(positives, [-0.1] * count, "|", label="positives", **style)
    title = f"{count} positives: BRS is off by {error:.0%}"
    tidy(axes, title=title, xlabel="logit $s$ of the negative", xlim=(-3.5, 4))
