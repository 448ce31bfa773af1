"""Draw how each loss works: the pictures of docs/losses.md.

    python tools/draw_losses.py                          # all, to docs/losses
    python tools/draw_losses.py --losses rs --output x   # one, elsewhere

The losses of the package compute what the pictures show, on the 11 logits below.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from brloss_d2.cli.common import run_program
from brloss_d2.criteria import MatchedPredictions, TaskAlignment
from brloss_d2.losses import (
    BinaryCrossEntropyLoss,
    ClassWeightedLoss,
    CorrelationLoss,
    IABCELoss,
    MatchabilityAwareLoss,
    PositionSupervisedLoss,
    QualityFocalLoss,
    ScoreLoss,
    SigmoidFocalLoss,
    VarifocalLoss,
    alrp_loss,
    ap_loss,
    bucketed_ap_loss,
    bucketed_rank_sort_loss,
    dr_loss,
    rank_sort_loss,
)
from brloss_d2.ops.dense import ramp
from brloss_d2.plotting.figures import PALETTE, save_figure, tidy

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Logits. The positive with the worst box has the highest score.
POSITIVES = torch.tensor([1.6, 0.5, -0.6], dtype=torch.float64)
IOU = torch.tensor([0.55, 0.9, 0.7], dtype=torch.float64)
NEGATIVES = torch.tensor([2.2, 1.15, 0.85, 0.1, -0.2, -0.95, -1.3, -2.4], dtype=torch.float64)
LOGITS = torch.cat([POSITIVES, NEGATIVES])
LABELS = torch.tensor([1] * len(POSITIVES) + [0] * len(NEGATIVES))
COUNT = len(POSITIVES)

BLUE, ORANGE, GREEN, PURPLE, *_, BLACK = PALETTE
GRAY = "#777777"
STYLE = {
    "figure.dpi": 130,
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "legend.fontsize": 9,
    "legend.frameon": False,
    "hatch.linewidth": 0.8,
}
RANGE = (-2.9, 2.9)
WIDTH = 0.12  # width of a bar, in logits
STEPS, RATE = 200, 0.15  # of the descents in the picture of RS
BAP_DELTA = 1.0  # half width of the ramp of BAP, in logits


def stacked(rows: int, height: float = 2.5) -> tuple[Figure, list[Axes]]:
    """Create axes below each other with a common axis of logits."""
    figure, axes = plt.subplots(
        rows, 1, figsize=(7.6, height * rows), sharex=True, layout="constrained"
    )
    axes[-1].set(xlim=RANGE, xlabel="logit $s$")
    return figure, list(axes)


def gradient(loss: Callable[..., dict[str, Tensor]], term: str, *arguments: Tensor) -> Tensor:
    """Return the gradient of one term of a loss with respect to the logits, (M,)."""
    logits = arguments[0].clone().requires_grad_()
    return torch.autograd.grad(loss(logits, *arguments[1:])[term], logits)[0]


def mark_decisions(axes: Axes, y: float = 0.0) -> None:
    """Draw the positives as blue dots and the negatives as orange squares, at height `y`."""
    style = {"zorder": 5, "clip_on": False, "linestyle": ""}
    axes.plot(POSITIVES, [y] * len(POSITIVES), "o", color=BLUE, label="positive", ms=8, **style)
    axes.plot(NEGATIVES, [y] * len(NEGATIVES), "s", color=ORANGE, label="negative", ms=6, **style)


def movement(axes: Axes, title: str, solid: Tensor, hatched: Tensor | None = None) -> None:
    """Draw how a step of gradient descent moves the logits: upward bars raise a score.

    Args:
        axes: axes to draw into; `compared` makes their legend.
        title: title of the axes.
        solid: gradients (M,), drawn as solid bars.
        hatched: gradients (M,) to compare with, drawn as hatched bars to the left.
    """
    colors = [BLUE if label else ORANGE for label in LABELS]
    offset = 0.0 if hatched is None else WIDTH / 2
    axes.bar((LOGITS + offset).numpy(), (-solid).numpy(), WIDTH, color=colors)
    if hatched is not None:
        style = {"color": "white", "edgecolor": colors, "hatch": "/////"}
        axes.bar((LOGITS - offset).numpy(), (-hatched).numpy(), WIDTH, **style)
    mark_decisions(axes)
    axes.axhline(0, color=BLACK, linewidth=0.8)
    tidy(axes, title=title, ylabel="−gradient\n(up: score rises)")


def legend(axes: Axes, **options: object) -> None:
    """Put the legend to the right of the axes, so that it hides nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), **options)


def compared(hatched: str, solid: str) -> list[Patch]:
    """Return legend entries for the hatched and the solid bars."""
    return [
        Patch(facecolor="white", edgecolor=GRAY, hatch="/////", label=hatched),
        Patch(facecolor=GRAY, edgecolor=GRAY, label=solid),
    ]


def draw_ap() -> Figure:
    """Draw which negatives a positive counts, and how AP Loss moves all scores."""
    figure, (top, bottom) = stacked(2)
    i, delta = 1, 1.0
    above = ramp(NEGATIVES - POSITIVES[i], delta)
    others = ramp(POSITIVES - POSITIVES[i], delta)
    others[i] = 1.0
    fp, rank = float(above.sum()), float(above.sum() + others.sum())
    s = torch.linspace(*RANGE, 400, dtype=torch.float64)
    top.plot(s, ramp(s - POSITIVES[i], delta), color=BLACK, label="$H(s - s_i)$")
    style = {"color": ORANGE, "linewidth": 5, "alpha": 0.5}
    top.vlines(NEGATIVES, 0, above, label="counted of it", **style)
    mark_decisions(top)
    top.annotate("$i$", (POSITIVES[i], 0), (0, 9), textcoords="offset points", ha="center")
    text = f"FP$(i)$ = {fp:.2f}\nrank$(i)$ = {rank:.2f}\nerror = FP / rank = {fp / rank:.2f}"
    top.text(-2.7, 0.98, text, va="top", linespacing=1.5)
    tidy(
        top, title="Positive $i$ counts the negatives above it, those nearby in part", ylabel="$H$"
    )
    legend(top)
    title = "Positives rise by their error; negatives fall by their share in the errors"
    movement(bottom, title, gradient(ap_loss, "loss_rank", LOGITS, LABELS))
    return figure


def draw_alrp() -> Figure:
    """Draw how localization errors change the ranking and how the boxes are weighted."""
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
    """Draw the two terms of RS Loss, and gradient descent on RS and on AP Loss."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 5.8), layout="constrained")
    _sorting(axes[0, 0])
    rank, sort = (
        gradient(rank_sort_loss, name, LOGITS, LABELS, IOU) for name in ("loss_rank", "loss_sort")
    )
    movement(axes[1, 0], "loss_rank moves the negatives too", sort, rank)
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
    """Return the logits before and after each step of gradient descent, (STEPS + 1, M)."""
    path = [LOGITS]
    for _ in range(STEPS):
        logits = path[-1]
        terms = loss(logits, LABELS, IOU)
        steps = [gradient(loss, name, logits, LABELS, IOU) for name in terms]
        path.append(logits - RATE * torch.stack(steps).sum(0))
    return torch.stack(path)


def draw_bap() -> Figure:
    """Draw the buckets with their prototypes, and the gradients with and without buckets."""
    figure, (top, bottom) = stacked(2)
    _buckets(top)
    legend(top)
    exact = partial(rank_sort_loss, delta=BAP_DELTA)
    without = gradient(exact, "loss_rank", LOGITS, LABELS, torch.ones_like(POSITIVES))
    bap = gradient(bucketed_ap_loss, "loss_rank", LOGITS, LABELS)
    movement(bottom, "The negatives of a bucket all fall alike", bap, without)
    legend(bottom, handles=compared("without\nbuckets", "BAP"))
    return figure


def _buckets(axes: Axes) -> None:
    reach = float(POSITIVES.min()) - BAP_DELTA
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
    """Draw the gradients of the negatives under RS and BRS Loss, with few and many positives."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharey=True, layout="constrained")
    for ax, count in zip(axes, (3, 10, 100), strict=True):
        _staircase(ax, count)
    axes[0].set_ylabel("gradient of a negative,\nshare of the largest of RS")
    axes[0].legend(loc="upper left")
    return figure


def _staircase(axes: Axes, count: int) -> None:
    """Draw the gradients with `count` positives from N(1, 1) and 2000 negatives from N(0, 1)."""
    negatives, positives = (
        mean + torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
        for n, mean in ((2000, 0.0), (count, 1.0))
    )
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


def draw_dr() -> Figure:
    """Draw the weights of DR Loss within positives and negatives, and how it moves all scores."""
    figure, (top, bottom) = stacked(2)
    softness = 0.1 / math.log(3.5)
    for logits, color, slope in ((POSITIVES, BLUE, -1.0), (NEGATIVES, ORANGE, 1 / softness)):
        weights = (slope * logits.sigmoid()).softmax(0)
        top.bar(logits.numpy(), weights.numpy(), WIDTH, color=color)
    mark_decisions(top)
    title = "High negatives weigh most, and low positives a little more than high ones"
    tidy(top, title=title, ylabel="weight in\nthe mean")
    legend(top)
    title = "The mean of the negatives falls and that of the positives rises"
    movement(bottom, title, gradient(lambda *x: {"": dr_loss(*x)}, "", LOGITS, LABELS))
    return figure


def draw_tal() -> Figure:
    """Draw the targets of the task-aligned loss: of an object's positives, and over a score."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.3), layout="constrained")
    scores = torch.tensor([0.35, 0.6, 0.25, 0.5], dtype=torch.float64)
    iou = torch.tensor([0.55, 0.65, 0.75, 0.85], dtype=torch.float64)
    arrow = {"arrowstyle": "-|>", "color": BLUE, "linewidth": 2, "shrinkA": 5, "shrinkB": 0}
    for x, y, target in zip(iou, scores, task_aligned(scores, iou), strict=True):
        left.annotate("", (x, target), (x, y), arrowprops=arrow)
    left.plot(iou, scores, "o", color=BLUE, ms=8)
    left.plot((0, 1), (0, 1), "--", color=GRAY, linewidth=1, label="score = IoU")
    left.legend(loc="upper left")
    title = "Four positives of an object: score, and arrow to its target"
    tidy(left, title=title, xlabel="IoU", ylabel="score", xlim=(0.4, 1.0), ylim=(0, 1))
    own = torch.linspace(0.002, 0.998, 499, dtype=torch.float64)
    for quality, color, line in ((0.9, BLUE, "-"), (0.7, GREEN, "-."), (0.5, PURPLE, ":")):
        pairs = [torch.stack([p, p.new_tensor(0.5)]) for p in own]
        both = torch.tensor([quality, 0.8], dtype=torch.float64)
        targets = torch.stack([task_aligned(pair, both)[0] for pair in pairs])
        right.plot(own, targets, line, color=color, label=f"IoU {quality}")
    right.plot((0, 1), (0, 1), "--", color=GRAY, linewidth=1, label="target = score")
    title = "Target of a positive next to one of score 0.5 and IoU 0.8"
    tidy(right, title=title, xlabel="its score", ylabel="its target", xlim=(0, 1), ylim=(0, 1))
    legend(right)
    return figure


def task_aligned(scores: Tensor, iou: Tensor) -> Tensor:
    """Return (P,) targets of the task-aligned loss for the positives of one object."""
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=iou.dtype).repeat(len(iou), 1)
    narrow = boxes * torch.stack([iou, iou, iou, torch.ones_like(iou)], 1)
    labels = torch.zeros(len(iou), dtype=torch.long)
    matched = MatchedPredictions(scores.logit()[:, None], labels, narrow, boxes, num_classes=1)
    return TaskAlignment()(matched)


def draw_weights() -> Figure:
    """Draw the weights of classes over their sizes, and what two of them do to focal loss."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.3), layout="constrained")
    counts = torch.logspace(0, 5, 101, dtype=torch.float64).round()
    for beta, color, line in ((0.99, GREEN, "-."), (0.999, BLUE, "-"), (0.9999, PURPLE, ":")):
        weights = (1 - beta) / (1 - beta**counts)
        left.loglog(counts, weights, line, color=color, label=f"$\\beta$ = {beta}")
    title = "Beyond some $1 / (1 - \\beta)$ objects, more of them change nothing"
    tidy(left, title=title, xlabel="objects of the class", ylabel="weight before scaling")
    left.legend()
    scores = torch.linspace(0.002, 0.998, 499, dtype=torch.float64)
    # A row of each class and one of the background.
    loss = ClassWeightedLoss(SigmoidFocalLoss(), counts=[200, 20])
    targets = torch.tensor([[1.0, 0], [0, 1], [0, 0]], dtype=torch.float64)
    logits = scores.logit()[:, None, None].expand(-1, 3, 2).clone().requires_grad_()
    total = sum(loss(x, targets).sum() for x in logits)
    (slope,) = torch.autograd.grad(total, logits)
    rows = {"positive of 20": (1, 1), "positive of 200": (0, 0), "background": (2, 0)}
    styles = ((BLUE, "-"), (GREEN, "-."), (ORANGE, "--"))
    for (label, (row, column)), (color, line) in zip(rows.items(), styles, strict=True):
        right.plot(scores, -slope[:, row, column], line, color=color, label=label)
    right.axhline(0, color=BLACK, linewidth=0.8)
    title = "Focal Loss with classes of 20 and of 200 objects"
    tidy(right, title=title, xlabel="score", ylabel="−gradient\n(up: score rises)", xlim=(0, 1))
    legend(right)
    return figure


def draw_corr() -> Figure:
    """Draw how both kinds of Correlation Loss move the scores of the positives."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.3), sharey=True, layout="constrained")
    titles = ("concordance: scores go to the IoU", "pearson: scores go to a rising line")
    for ax, title in zip(axes, titles, strict=True):
        logits = POSITIVES.clone().requires_grad_()
        loss = CorrelationLoss(kind=title.split(":")[0], weight=1.0)
        (slope,) = torch.autograd.grad(loss(logits.sigmoid(), IOU), logits)
        scores, moves = POSITIVES.sigmoid(), -slope
        arrow = {"arrowstyle": "-|>", "color": BLUE, "linewidth": 2, "shrinkA": 5, "shrinkB": 0}
        longest = float(moves.abs().max())
        for x, y, move in zip(scores.tolist(), IOU.tolist(), moves.tolist(), strict=True):
            ax.annotate("", (x + 0.2 * move / longest, y), (x, y), arrowprops=arrow)
        ax.plot(scores, IOU, "o", color=BLUE, ms=8)
        ax.plot((0, 1), (0, 1), "--", color=GRAY, linewidth=1)
        tidy(ax, title=title, xlabel="score", ylabel="IoU", xlim=(0, 1), ylim=(0.4, 1.0))
    return figure


class TowardsScoreAndIoU(IABCELoss):
    """IA-BCE whose targets are given as IoU."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compare (R, K) logits with (R, K) IoU: (R, K) losses."""
        mean = logits.detach().sigmoid() ** 0.25 * targets**0.75
        return super().forward(logits, torch.where(targets > 0, mean.clamp(min=0.01), 0.0))


NEGATIVE = ("negative", 0.0, ORANGE, "--")
HARD = (NEGATIVE, ("positive", 1.0, BLUE, "-"))
SOFT = (NEGATIVE, ("positive, {} 0.9", 0.9, BLUE, "-"), ("positive, {} 0.5", 0.5, GREEN, "-."))


def draw_score_based(name: str, loss: ScoreLoss, target_is: str = "IoU") -> Figure:
    """Draw loss and gradient against the score, for a negative and for positives."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.3), layout="constrained")
    scores = torch.linspace(0.002, 0.998, 499, dtype=torch.float64)
    for text, target, color, line in SOFT if loss.soft_targets else HARD:
        label = text.format(target_is)
        logits = scores.logit().requires_grad_()
        value = loss(logits, torch.full_like(scores, target))
        (slope,) = torch.autograd.grad(value.sum(), logits)
        left.plot(scores, value.detach(), line, color=color, label=label)
        right.plot(scores, -slope, line, color=color, label=label)
    right.axhline(0, color=BLACK, linewidth=0.8)
    tidy(left, title=name, xlabel="score", ylabel="loss", ylim=(-0.05, 3), xlim=(0, 1))
    title = f"What becomes of a score depends on itself and its {target_is} alone"
    title = title if loss.soft_targets else "What becomes of a score depends on itself alone"
    tidy(right, title=title, xlabel="score", ylabel="−gradient\n(up: score rises)")
    right.set(xlim=(0, 1), ylim=(-1.3, 1.1))
    right.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


SCORE_BASED: dict[str, Callable[[], Figure]] = {
    file: partial(draw_score_based, *arguments)
    for file, arguments in {
        "ce": ("Cross-entropy", BinaryCrossEntropyLoss()),
        "focal": ("Focal Loss", SigmoidFocalLoss()),
        "qfl": ("Quality Focal Loss", QualityFocalLoss()),
        "vfl": ("Varifocal Loss", VarifocalLoss()),
        "mal": ("Matchability-Aware Loss", MatchabilityAwareLoss()),
        "iabce": ("IA-BCE", TowardsScoreAndIoU()),
        "psl": ("Position-supervised loss", PositionSupervisedLoss(), "target"),
    }.items()
}


PICTURES: dict[str, Callable[[], Figure]] = {
    "ap": draw_ap,
    "alrp": draw_alrp,
    "rs": draw_rs,
    "bap": draw_bap,
    "brs": draw_brs,
    "dr": draw_dr,
    **SCORE_BASED,
    "tal": draw_tal,
    "weights": draw_weights,
    "corr": draw_corr,
}


OUTPUT = Path(__file__).parents[1] / "docs" / "losses"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--losses", nargs="+", choices=PICTURES, default=list(PICTURES), help="default: all"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder (default: docs/losses)")
    return run_program(_draw, parser.parse_args(argv))


def _draw(args: argparse.Namespace) -> int:
    with plt.rc_context(STYLE):
        for name in args.losses:
            figure = PICTURES[name]()
            save_figure(figure, str(args.output / f"{name}.png"))
            plt.close(figure)
    print(f"Wrote {', '.join(f'{name}.png' for name in args.losses)} to {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
