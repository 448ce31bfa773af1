"""Criteria of the score-based baselines: softmax cross-entropy and sigmoid losses."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.criteria.matched import (
    BoxLosses,
    Criterion,
    CriterionOutput,
    MatchedPredictions,
    named_box_losses,
)
from brloss_d2.criteria.pooling import check_pools, processes_of
from brloss_d2.criteria.quality import PositiveQuality, QualityBranch
from brloss_d2.losses import BoxLoss, ScoreLoss, paired_box_iou


class SoftmaxCriterion(Criterion):
    """Softmax cross-entropy over K + 1 classes, and a box loss; the Fast R-CNN baseline.

    Both are divided by the number of rows that are not ignored.

    Args:
        box_loss: per positive.
        box_weight: weight of the box loss.
    """

    def __init__(self, box_loss: BoxLoss, *, box_weight: float = 1.0):
        super().__init__()
        self.box_loss, self.box_weight = box_loss, box_weight

    def num_logits(self, num_classes: int) -> int:
        return num_classes + 1

    def predict_probs(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)[:, :-1]

    def forward(self, matched: MatchedPredictions) -> CriterionOutput:
        logits = matched.logits.float()
        cls_sum = F.cross_entropy(logits, matched.labels, ignore_index=-1, reduction="sum")
        count = _rows(matched).clamp(min=1)
        box_loss = self.box_weight * matched.box_losses(self.box_loss).sum() / count
        losses = {"loss_cls": cls_sum / count, "loss_box_reg": box_loss}
        return _output(losses, torch.ones_like(matched.pred_boxes[:, 0]).detach())

    def extra_repr(self) -> str:
        return f"box_weight={self.box_weight}"


class SigmoidCriterion(Criterion):
    """An elementwise loss of K sigmoids, a box loss, and possibly a branch that predicts quality.

    The RPN baseline, focal, quality focal and varifocal loss. Losses that compare with a soft
    target (`ScoreLoss.soft_targets`) get the IoU of the predicted box.

    Args:
        cls_loss: per row and class.
        box_loss: per positive; or several by name, such as `{"loss_l1": ..., "loss_giou": ...}`.
        box_weight: weight of the box loss; of several by name.
        normalizer: what the classification loss is divided by: the number of "rows" that are not
            ignored, of "positives", "positives_per_image" (with at least one for each image),
            "positives_or_images" (whichever are more) or "positives_and_images" (both together).
        box_normalizer: the same for box loss and quality branch; None is `normalizer`.
        box_weighting: average the box losses with this weight instead; a sum of weights below 1
            counts as 1.
        quality: the branch.
        pool: "global" takes the mean of every divisor over all processes. All of them have to
            compute the loss.
    """

    def __init__(
        self,
        cls_loss: ScoreLoss,
        box_loss: BoxLosses,
        *,
        box_weight: float | Mapping[str, float] = 1.0,
        normalizer: str = "positives",
        box_normalizer: str | None = None,
        box_weighting: PositiveQuality | None = None,
        quality: QualityBranch | None = None,
        pool: str = "local",
    ):
        super().__init__()
        for kind in (normalizer, box_normalizer or normalizer):
            if kind not in _COUNTS:
                raise ValueError(f"normalizer must be one of {tuple(_COUNTS)}, got {kind!r}")
        check_pools(None, pool)
        self.cls_loss, self.box_losses = cls_loss, named_box_losses(box_loss)
        if not isinstance(box_weight, Mapping):
            box_weight = {"loss_box_reg": box_weight}
        self.box_weights = dict(box_weight)
        if self.box_weights.keys() != self.box_losses.keys():
            raise ValueError(
                f"box_weight must have a number for each of {list(self.box_losses)}, got "
                f"{box_weight}"
            )
        self.normalizer, self.box_normalizer = normalizer, box_normalizer or normalizer
        self.box_weighting, self.quality, self.pool = box_weighting, quality, pool

    def forward(self, matched: MatchedPredictions) -> CriterionOutput:
        weights = self._box_weights(matched)
        cls_count, box_count, total_weight = self._divisors(matched, weights)
        box_divisor = total_weight if self.box_weighting is not None else box_count
        losses = {"loss_cls": self._cls_sum(matched) / cls_count}
        for name, box_loss in self.box_losses.items():
            box_sum = (matched.box_losses(box_loss) * weights).sum()
            losses[name] = self.box_weights[name] * box_sum / box_divisor
        if self.quality is not None:
            losses["loss_quality"] = self.quality(matched) / box_count
        return _output(losses, weights)

    def extra_repr(self) -> str:
        return (
            f"box_weights={self.box_weights}, normalizer={self.normalizer!r}, "
            f"box_normalizer={self.box_normalizer!r}, pool={self.pool!r}"
        )

    def _cls_sum(self, matched: MatchedPredictions) -> Tensor:
        logits, labels = matched.logits.float(), matched.binary_labels()
        targets = labels.clamp(min=0).to(logits.dtype)
        if self.cls_loss.soft_targets:
            quality = paired_box_iou(matched.pred_boxes.detach(), matched.gt_boxes)
            rows = matched.foreground()
            targets[rows, matched.labels[rows]] = quality.to(targets.dtype)
        elementwise = self.cls_loss(logits, targets)
        return elementwise.masked_fill(labels < 0, 0.0).sum()

    def _box_weights(self, matched: MatchedPredictions) -> Tensor:
        if self.box_weighting is None:
            return torch.ones_like(matched.pred_boxes[:, 0]).detach()
        return self.box_weighting(matched)

    def _divisors(self, matched: MatchedPredictions, weights: Tensor) -> tuple[Tensor, ...]:
        """Each (), at least 1: of classification, of boxes, and the sum of box weights."""
        counts = [_COUNTS[kind](matched) for kind in (self.normalizer, self.box_normalizer)]
        divisors = torch.stack([*(c.to(weights) for c in counts), weights.sum()])
        processes = processes_of(self.pool)
        return (processes.sum(divisors) / processes.size).clamp(min=1).unbind()


def _rows(matched: MatchedPredictions) -> Tensor:
    return (matched.labels >= 0).sum()


def _positives(matched: MatchedPredictions) -> Tensor:
    return torch.tensor(len(matched.pred_boxes), device=matched.labels.device)


def _positives_per_image(matched: MatchedPredictions) -> Tensor:
    if matched.images is None:
        return _positives(matched).clamp(min=1)
    images = matched.images[matched.foreground()]
    return torch.bincount(images, minlength=matched.num_images).clamp(min=1).sum()


def _positives_or_images(matched: MatchedPredictions) -> Tensor:
    return _positives(matched).clamp(min=matched.num_images)


def _positives_and_images(matched: MatchedPredictions) -> Tensor:
    return _positives(matched) + matched.num_images


_COUNTS: dict[str, Callable[[MatchedPredictions], Tensor]] = {
    "rows": _rows,
    "positives": _positives,
    "positives_per_image": _positives_per_image,
    "positives_or_images": _positives_or_images,
    "positives_and_images": _positives_and_images,
}


def _output(losses: dict[str, Tensor], box_weights: Tensor) -> CriterionOutput:
    return CriterionOutput(
        losses,
        box_weights=box_weights,
        cls_total=losses["loss_cls"].detach(),
        metrics={"num_positives": len(box_weights)},
    )
