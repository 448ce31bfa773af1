"""The score-based losses: what a decision costs, and how it moves its own score."""

from collections.abc import Callable
from functools import partial

import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from brloss_d2.losses import (
    BinaryCrossEntropyLoss,
    MatchabilityAwareLoss,
    QualityFocalLoss,
    ScoreLoss,
    SigmoidFocalLoss,
    VarifocalLoss,
)
from brloss_d2.plotting.figures import tidy
from loss_pictures.scene import BLACK, BLUE, GREEN, ORANGE

HARD = {"negative": (0.0, ORANGE, "--"), "positive": (1.0, BLUE, "-")}
SOFT = {
    "negative": (0.0, ORANGE, "--"),
    "positive, IoU 0.9": (0.9, BLUE, "-"),
    "positive, IoU 0.5": (0.5, GREEN, "-."),
}


def draw(name: str, loss: ScoreLoss) -> Figure:
    """Loss and gradient against the score, for a negative and for positives."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.3), layout="constrained")
    scores = torch.linspace(0.002, 0.998, 499, dtype=torch.float64)
    for label, (target, color, line) in (SOFT if loss.soft_targets else HARD).items():
        value, step = _curves(loss, scores, target)
        left.plot(scores, value, line, color=color, label=label)
        right.plot(scores, step, line, color=color, label=label)
    right.axhline(0, color=BLACK, linewidth=0.8)
    tidy(left, title=name, xlabel="score", ylabel="loss", ylim=(-0.05, 3), xlim=(0, 1))
    title = "What becomes of a score depends on itself alone"
    tidy(right, title=title, xlabel="score", ylabel="−gradient\n(up: score rises)")
    right.set(xlim=(0, 1), ylim=(-1.3, 1.1))
    right.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _curves(loss: ScoreLoss, scores: Tensor, target: float) -> tuple[Tensor, Tensor]:
    logits = scores.logit().requires_grad_()
    value = loss(logits, torch.full_like(scores, target))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), -gradient


SCORE_BASED: dict[str, Callable[[], Figure]] = {
    file: partial(draw, name, loss)
    for file, (name, loss) in {
        "ce": ("Cross-entropy", BinaryCrossEntropyLoss()),
        "focal": ("Focal Loss", SigmoidFocalLoss()),
        "qfl": ("Quality Focal Loss", QualityFocalLoss()),
        "vfl": ("Varifocal Loss", VarifocalLoss()),
        "mal": ("Matchability-Aware Loss", MatchabilityAwareLoss()),
    }.items()
}
