"""AP, aLRP and Rank & Sort Loss."""

from collections.abc import Callable

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from brloss_d2.losses import alrp_loss, ap_loss, rank_sort_loss
from brloss_d2.ops.dense import ramp
from brloss_d2.plotting.figures import tidy
from loss_pictures.scene import (
    BLACK,
    BLUE,
    COUNT,
    IOU,
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

STEPS, RATE = 200, 0.15  # of the descents in the picture of RS


def draw_ap() -> Figure:
    """Which negatives a positive counts, and how AP Loss moves all scores."""
    figure, (top, bottom) = stacked(2)
    _false_positives(top, 1, delta=1.0)
    legend(top)
    title = "Positives rise by their error; negatives fall by their share in the errors"
    movement(bottom, title, gradient(ap_loss, "loss_rank", LOGITS, LABELS))
    return figure


def _false_positives(axes: Axes, i: int, delta: float) -> None:
    above = ramp(NEGATIVES - POSITIVES[i], delta)
    others = ramp(POSITIVES - POSITIVES[i], delta)
    others[i] = 1.0
    fp, rank = float(above.sum()), float(above.sum() + others.sum())
    s = torch.linspace(*RANGE, 400, dtype=torch.float64)
    axes.plot(s, ramp(s - POSITIVES[i], delta), color=BLACK, label="$H(s - s_i)$")
    style = {"color": ORANGE, "linewidth": 5, "alpha": 0.5}
    axes.vlines(NEGATIVES, 0, above, label="counted of it", **style)
    mark_decisions(axes)
    axes.annotate("$i$", (POSITIVES[i], 0), (0, 9), textcoords="offset points", ha="center")
    text = f"FP$(i)$ = {fp:.2f}\nrank$(i)$ = {rank:.2f}\nerror = FP / rank = {fp / rank:.2f}"
    axes.text(-2.7, 0.98, text, va="top", linespacing=1.5)
    title = "Positive $i$ counts the negatives above it, those nearby in part"
    tidy(axes, title=title, ylabel="$H$")


def draw_alrp() -> Figure:
    """What localization errors do to the ranking and how the boxes are weighted."""
    figure, (top, bottom) = stacked(2)
    errors = 1 - IOU
    _box_weights(top, errors)
    perfect, real = (
        gradient(alrp_loss, "loss_rank", LOGITS, LABELS, e) for e in (errors * 0, errors)
    )
    movement(bottom, "loss_rank: bad boxes above a positive make it rise more", real, perfect)
    legend(bottom, handles=compared("if all boxes\nwere perfect", "with the $E$\nabove"))
    return figure


def _box_weights(axes: Axes, errors: Tensor) -> None:
    errors = errors.clone().requires_grad_()
    (gradient_of_errors,) = torch.autograd.grad(
        alrp_loss(LOGITS, LABELS, errors)["loss_box"], errors
    )
    weights, heights = gradient_of_errors.numpy(), errors.detach().numpy()
    left, right, width = (POSITIVES - 0.18).numpy(), (POSITIVES + 0.18).numpy(), 0.26
    hatched = {"color": "white", "edgecolor": BLUE, "hatch": "/////"}
    axes.bar(left, weights, width, label="its weight in\nloss_box", **hatched)
    axes.bar(right, heights, width, label="localization\nerror $E$", color=BLUE)
    for places, values in ((left, weights), (right, heights)):
        for x, value in zip(places, values, strict=True):
            axes.text(float(x), float(value) + 0.01, f"{value:.2f}", ha="center", fontsize=9)
    mark_decisions(axes)
    title = "loss_box: the boxes of high scores count most"
    tidy(axes, title=title, ylim=(0, 0.55), ylabel="error or weight")
    legend(axes)


def draw_rs() -> Figure:
    """The two terms of RS, and what becomes of the scores by following it, and AP Loss."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 5.8), layout="constrained")
    _sorting(axes[0, 0])
    rank, sort = (
        gradient(rank_sort_loss, name, LOGITS, LABELS, IOU) for name in ("loss_rank", "loss_sort")
    )
    movement(axes[1, 0], "loss_rank beside it moves the negatives too", sort, rank)
    axes[1, 0].set(xlim=RANGE, xlabel="logit $s$")
    axes[1, 0].legend(handles=compared("loss_rank", "loss_sort"), loc="lower left")
    _descent(axes[0, 1], "Descending RS Loss sorts the positives by IoU", rank_sort_loss)
    _descent(axes[1, 1], "Descending AP Loss leaves them in any order", ap_loss)
    return figure


def _sorting(axes: Axes) -> None:
    moves = -gradient(rank_sort_loss, "loss_sort", LOGITS, LABELS, IOU)[:COUNT]
    arrow = {"arrowstyle": "-|>", "color": BLUE, "linewidth": 2, "shrinkA": 5, "shrinkB": 0}
    for x, y, move in zip(POSITIVES.tolist(), IOU.tolist(), moves.tolist(), strict=True):
        axes.annotate("", (x + 8 * move, y), (x, y), arrowprops=arrow)
        axes.text(x, y + 0.05, f"IoU {y:.2f}", ha="center", fontsize=9)
    axes.plot(POSITIVES, IOU, "o", color=BLUE, ms=8)
    title = "loss_sort raises good boxes and lowers bad ones"
    tidy(axes, title=title, xlabel="logit $s$", ylabel="IoU", xlim=RANGE, ylim=(0.4, 1.05))


def _descent(axes: Axes, title: str, loss: Callable[..., dict[str, Tensor]]) -> None:
    path = descend(loss)
    axes.plot(path[:, COUNT:], "--", color=ORANGE, linewidth=1)
    axes.plot(path[:, :COUNT], "-", color=BLUE, linewidth=2)
    height = float("-inf")
    for end, iou in sorted(zip(path[-1, :COUNT].tolist(), IOU.tolist(), strict=True)):
        height = max(end, height + 0.35)  # labels do not overlap
        axes.text(STEPS * 1.02, height, f"IoU {iou:.2f}", va="center", fontsize=9)
    for y, label, color in ((-0.8, "negatives", ORANGE), (2.45, "positives", BLUE)):
        axes.text(STEPS * 0.75, y, label, color=color)
    tidy(axes, title=title, xlabel="steps of gradient descent", ylabel="logit $s$")
    axes.set(xlim=(0, STEPS), ylim=(-2.6, 2.9))


def descend(loss: Callable[..., dict[str, Tensor]]) -> Tensor:
    """Logits after each of `STEPS` steps of gradient descent, (STEPS + 1, M)."""
    path = [LOGITS]
    for _ in range(STEPS):
        logits = path[-1]
        terms = loss(logits, LABELS, IOU)
        steps = [gradient(loss, name, logits, LABELS, IOU) for name in terms]
        path.append(logits - RATE * torch.stack(steps).sum(0))
    return torch.stack(path)
