"""Criteria of the score-based baselines: softmax cross-entropy and sigmoid losses."""

from collections.abc import Mapping

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
from brloss_d2.criteria.pooling import world
from brloss_d2.criteria.quality import PositiveQuality, QualityBranch
from brloss_d2.losses import BoxLoss, DRLoss, ScoreLoss, paired_box_iou
from brloss_d2.losses.base import at_least_float32, check_numbers, check_types

_NORMALIZERS = (
    "rows",
    "positives",
    "positives_per_image",
    "positives_or_images",
    "positives_and_images",
)


class SoftmaxCriterion(Criterion):
    """Softmax cross-entropy over K + 1 classes and a box loss: the Fast R-CNN baseline.

    Both are divided by the number of rows that are not ignored.

    Args:
        box_loss: loss per positive.
        box_weight: factor of the box loss.

    Example:
        >>> from brloss_d2.losses import SmoothL1Loss
        >>> SoftmaxCriterion(SmoothL1Loss()).num_logits(80)
        81
    """

    def __init__(self, box_loss: BoxLoss, *, box_weight: float = 1.0):
        super().__init__()
        check_types(box_loss=(box_loss, BoxLoss))
        check_numbers(">= 0", box_weight=box_weight)
        self.box_loss, self.box_weight = box_loss, box_weight

    def num_logits(self, num_classes: int) -> int:
        """Return `num_classes + 1`: the last output is the background."""
        return num_classes + 1

    def predict_probs(self, logits: Tensor) -> Tensor:
        """Turn logits (R, K + 1) into foreground probabilities (R, K) in [0, 1]."""
        return logits.softmax(-1)[:, :-1]

    def forward(self, matched: MatchedPredictions) -> CriterionOutput:
        """Compute `loss_cls` and `loss_box_reg`."""
        logits = matched.logits.float()
        cls_sum = F.cross_entropy(logits, matched.labels, ignore_index=-1, reduction="sum")
        count = (matched.labels >= 0).sum().clamp(min=1)
        box_loss = self.box_weight * matched.box_losses(self.box_loss).sum() / count
        losses = {"loss_cls": cls_sum / count, "loss_box_reg": box_loss}
        return _output(losses, torch.ones_like(matched.pred_boxes[:, 0]).detach())


class SigmoidCriterion(Criterion):
    """Elementwise loss of K sigmoids, a box loss, and possibly a branch that predicts quality.

    The RPN baseline, focal, quality focal and varifocal loss. Losses that compare with a soft
    target (`ScoreLoss.soft_targets`) get the IoU of the predicted box. DR Loss ranks the pairs of a
    row and a class of a pool; it has no divisor.

    Args:
        cls_loss: loss per row and class, or DR Loss.
        box_loss: loss per positive, or several by name: `{"loss_l1": ..., "loss_giou": ...}`.
        box_weight: factor of the box loss; a dictionary of factors if there are several.
        normalizer: divisor of the classification loss: the number of "rows" that are not ignored,
            of "positives", "positives_per_image" (at least one counted per image),
            "positives_or_images" (the larger number) or "positives_and_images" (the sum).
        box_normalizer: divisor of box loss and quality branch; None is `normalizer`.
        box_weighting: weight of each positive in the box loss, which is then divided by the sum of
            these weights, or by 1 if that is less.
        quality: branch that predicts quality.
        sync_normalizer: whether every divisor is averaged over all processes. Then all of them
            have to compute the loss.

    Raises:
        ValueError: If a normalizer is unknown, or `box_weight` and `box_loss` differ in names.

    Example:
        >>> from brloss_d2.losses import GIoULoss, SigmoidFocalLoss
        >>> criterion = SigmoidCriterion(SigmoidFocalLoss(), GIoULoss(), box_weight=2.0)
        >>> boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
        >>> logits, labels = torch.tensor([[2.0], [-2.0]]), torch.tensor([0, 1])
        >>> output = criterion(MatchedPredictions(logits, labels, boxes, boxes, num_classes=1))
        >>> sorted(output.losses)
        ['loss_box_reg', 'loss_cls']
    """

    def __init__(
        self,
        cls_loss: ScoreLoss | DRLoss,
        box_loss: BoxLosses,
        *,
        box_weight: float | Mapping[str, float] = 1.0,
        normalizer: str = "positives",
        box_normalizer: str | None = None,
        box_weighting: PositiveQuality | None = None,
        quality: QualityBranch | None = None,
        sync_normalizer: bool = False,
    ):
        super().__init__()
        if not isinstance(cls_loss, DRLoss):
            check_types(cls_loss=(cls_loss, ScoreLoss))
        if box_weighting is not None:
            check_types(box_weighting=(box_weighting, PositiveQuality))
        if quality is not None:
            check_types(quality=(quality, QualityBranch))
        for kind in (normalizer, box_normalizer or normalizer):
            if kind not in _NORMALIZERS:
                raise ValueError(f"normalizer must be one of {_NORMALIZERS}, got {kind!r}")
        self.cls_loss, self.box_losses = cls_loss, named_box_losses(box_loss)
        if not isinstance(box_weight, Mapping):
            box_weight = {"loss_box_reg": box_weight}
        self.box_weight = dict(box_weight)
        check_numbers(">= 0", **self.box_weight)
        if self.box_weight.keys() != self.box_losses.keys():
            raise ValueError(
                f"box_weight must have a number for each of {list(self.box_losses)}, got "
                f"{box_weight}"
            )
        self.normalizer, self.box_normalizer = normalizer, box_normalizer or normalizer
        self.box_weighting, self.quality = box_weighting, quality
        self.sync_normalizer = sync_normalizer

    def forward(self, matched: MatchedPredictions) -> CriterionOutput:
        """Compute `loss_cls`, the box losses and, with a quality branch, `loss_quality`."""
        if self.box_weighting is None:
            weights = torch.ones_like(matched.pred_boxes[:, 0]).detach()
        else:
            weights = self.box_weighting(matched)
        counts = [self._count(kind, matched) for kind in (self.normalizer, self.box_normalizer)]
        divisors = torch.stack([*(c.to(weights) for c in counts), weights.sum()])
        if self.sync_normalizer:
            group = world()
            divisors = group.sum(divisors) / group.size
        cls_count, box_count, total_weight = divisors.clamp(min=1).unbind()

        if isinstance(self.cls_loss, DRLoss):
            losses = {"loss_cls": _ranked(self.cls_loss, matched)}
        else:
            losses = {"loss_cls": self._compared(self.cls_loss, matched) / cls_count}
        box_divisor = box_count if self.box_weighting is None else total_weight
        for name, box_loss in self.box_losses.items():
            box_sum = (matched.box_losses(box_loss) * weights).sum()
            losses[name] = self.box_weight[name] * box_sum / box_divisor
        if self.quality is not None:
            losses["loss_quality"] = self.quality(matched) / box_count
        return _output(losses, weights)

    def _compared(self, cls_loss: ScoreLoss, matched: MatchedPredictions) -> Tensor:
        """Return the () sum of the losses of all rows and classes."""
        logits, labels = at_least_float32(matched.logits), matched.binary_labels()
        targets = labels.clamp(min=0).to(logits.dtype)
        if cls_loss.soft_targets:
            quality = paired_box_iou(matched.pred_boxes.detach(), matched.gt_boxes)
            targets.view(-1)[matched.positives] = quality.to(targets.dtype)
        return cls_loss(logits, targets).masked_fill(labels < 0, 0.0).sum()

    def _count(self, normalizer: str, matched: MatchedPredictions) -> Tensor:
        """Return the () number that a normalizer stands for."""
        positives = torch.tensor(len(matched.foreground), device=matched.labels.device)
        match normalizer:
            case "rows":
                return (matched.labels >= 0).sum()
            case "positives":
                return positives
            case "positives_per_image":
                return matched.positives_per_image.clamp(min=1).sum()
            case "positives_or_images":
                return positives.clamp(min=matched.num_images)
            case _:
                return positives + matched.num_images


def _ranked(cls_loss: DRLoss, matched: MatchedPredictions) -> Tensor:
    """Return the () mean loss of the pools; one without rows teaches nothing."""
    size = cls_loss.images_per_pool
    whole = size is None or matched.num_images <= size
    parts = [matched] if size is None or whole else matched.split(size)
    return torch.stack(
        [cls_loss(part.logits, part.binary_labels()) * (part.labels >= 0).any() for part in parts]
    ).mean()


def _output(losses: dict[str, Tensor], box_weights: Tensor) -> CriterionOutput:
    return CriterionOutput(
        losses,
        box_weights=box_weights,
        cls_total=losses["loss_cls"].detach(),
        metrics={"num_positives": len(box_weights)},
    )
