"""What the pictures share: the scores that they show, how decisions look, gradients."""

from collections.abc import Callable

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from brloss_d2.plotting.figures import PALETTE, tidy

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
WIDTH = 0.12  # of a bar, in logits


def stacked(rows: int, height: float = 2.5) -> tuple[Figure, list[Axes]]:
    """Axes below each other over one axis of logits."""
    figure, axes = plt.subplots(
        rows, 1, figsize=(7.6, height * rows), sharex=True, layout="constrained"
    )
    axes[-1].set(xlim=RANGE, xlabel="logit $s$")
    return figure, list(axes)


def gradient(loss: Callable[..., dict[str, Tensor]], term: str, *arguments: Tensor) -> Tensor:
    """Gradient of one term of a loss with respect to the logits, (M,)."""
    logits = arguments[0].clone().requires_grad_()
    loss(logits, *arguments[1:])[term].backward()
    assert logits.grad is not None
    return logits.grad


def mark_decisions(axes: Axes, y: float = 0.0) -> None:
    """The positives as blue dots, the negatives as orange squares, at a height."""
    style = {"zorder": 5, "clip_on": False, "linestyle": ""}
    axes.plot(POSITIVES, [y] * len(POSITIVES), "o", color=BLUE, label="positive", ms=8, **style)
    axes.plot(NEGATIVES, [y] * len(NEGATIVES), "s", color=ORANGE, label="negative", ms=6, **style)


def movement(axes: Axes, title: str, solid: Tensor, hatched: Tensor | None = None) -> None:
    """Show how a step of gradient descent moves the decisions, upwards where a score is raised.

    Args:
        axes: where; they get labels for the legend only by `compared`.
        title: of the axes.
        solid: gradients (M,).
        hatched: others (M,) to compare them with, to the left of them.
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
    """Put the legend to the right of the axes, where it hides nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), **options)


def compared(hatched: str, solid: str) -> list[Patch]:
    """Entries of a legend for the two kinds of bars, whatever their color."""
    return [
        Patch(facecolor="white", edgecolor=GRAY, hatch="/////", label=hatched),
        Patch(facecolor=GRAY, edgecolor=GRAY, label=solid),
    ]
