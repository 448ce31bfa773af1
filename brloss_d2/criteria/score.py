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
    weighted,
)
from brloss_d2.criteria.pooling import world
from brloss_d2.criteria.quality import (
    PositiveQuality,
    PredictedIoU,
    QualityBranch,
    correlation_loss,
)
from brloss_d2.losses import BoxLoss, CorrelationLoss, DRLoss, ScoreLoss
from brloss_d2.losses.base import at_least_float32, check_numbers, check_types
from brloss_d2.utils.devices import constant

_NORMALIZERS = (
    "rows",
    "positives",
    "positives_per_image",
    "positives_or_images",
    "positives_and_images",
    "positives_plus_one",
    "targets",
)


# A smaller sum of soft targets is taken for none.
_MIN_TARGETS = 1e-12


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
        return _output(losses, torch.ones_like(matched.gt_boxes[:, 0]))


class SigmoidCriterion(Criterion):
    """Elementwise loss of K sigmoids, a box loss, and possibly a branch that predicts quality.

    The RPN baseline, focal, quality focal and varifocal loss. Losses that compare with a soft
    target (`ScoreLoss.soft_targets`) get the IoU of the predicted box. DR Loss ranks the pairs of a
    row and a class of a pool; it has no divisor.

    Args:
        cls_loss: loss per row and class, or DR Loss.
        box_loss: loss per positive, or several by name: `{"loss_l1": ..., "loss_giou": ...}`;
            `{}` for a head without boxes.
        box_weight: factor of the box loss; a dictionary of factors if there are several.
        normalizer: divisor of the classification loss: the number of "rows" that are not ignored,
            of "positives", "positives_per_image" (at least one counted per image),
            "positives_or_images" (the larger number), "positives_and_images" (the sum) or
            "positives_plus_one", at least 1; or the sum of the "targets" of the positives.
        box_normalizer: divisor of box loss and quality branch; None is `normalizer`.
        box_weighting: weight of each positive in the box loss, which is then divided by the sum of
            these weights, or by 1 if that is less; by the targets if `box_normalizer` says so.
        quality: branch that predicts quality.
        target: soft target of the positives; None is their IoU.
        correlation: auxiliary term over the positives of this process, `loss_corr`.
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
        target: PositiveQuality | None = None,
        correlation: CorrelationLoss | None = None,
        sync_normalizer: bool = False,
    ):
        super().__init__()
        if not isinstance(cls_loss, DRLoss):
            check_types(cls_loss=(cls_loss, ScoreLoss))
        if box_weighting is not None:
            check_types(box_weighting=(box_weighting, PositiveQuality))
        if quality is not None:
            check_types(quality=(quality, QualityBranch))
        if target is not None:
            check_types(target=(target, PositiveQuality))
        if correlation is not None:
            check_types(correlation=(correlation, CorrelationLoss))
        for kind in (normalizer, box_normalizer or normalizer):
            if kind not in _NORMALIZERS:
                raise ValueError(f"normalizer must be one of {_NORMALIZERS}, got {kind!r}")
        self.cls_loss, self.box_losses = cls_loss, named_box_losses(box_loss)
        if not isinstance(box_weight, Mapping):
            box_weight = {"loss_box_reg": box_weight} if self.box_losses else {}
        self.box_weight = dict(box_weight)
        check_numbers(">= 0", **self.box_weight)
        if self.box_weight.keys() != self.box_losses.keys():
            raise ValueError(
                f"box_weight must have a number for each of {list(self.box_losses)}, got "
                f"{box_weight}"
            )
        self.normalizer, self.box_normalizer = normalizer, box_normalizer or normalizer
        self.box_weighting, self.quality = box_weighting, quality
        self.target, self.correlation = target, correlation
        self.sync_normalizer = sync_normalizer

    def forward(self, matched: MatchedPredictions) -> CriterionOutput:
        """Compute `loss_cls`, the box losses and, if there are such parts, the other losses."""
        if self.box_weighting is None:
            weights = torch.ones_like(matched.gt_boxes[:, 0])
        else:
            weights = self.box_weighting(matched)
        targets, kinds = self._targets(matched), (self.normalizer, self.box_normalizer)
        counts = [self._count(kind, matched, targets) for kind in kinds]
        total_weight = matched.by_layer(weights).sum(-1)
        counts = [count.to(weights).expand_as(total_weight) for count in counts]
        divisors = torch.stack([*counts, total_weight], -1)
        if self.sync_normalizer:
            group = world()
            divisors = group.sum(divisors) / group.size
        floors = [_MIN_TARGETS if kind == "targets" else 1.0 for kind in kinds]
        divisors = torch.where(divisors < constant((*floors, 1.0), divisors), 1, divisors)
        cls_count, box_count, total_weight = divisors.unbind(-1)

        if isinstance(self.cls_loss, DRLoss):
            losses = {"loss_cls": _ranked(self.cls_loss, matched)}
        else:
            losses = {"loss_cls": _compared(self.cls_loss, matched, targets) / cls_count}
        by_count = self.box_weighting is None or self.box_normalizer == "targets"
        box_divisor = box_count if by_count else total_weight
        for name, box_loss in self.box_losses.items():
            box_sum = matched.by_layer(matched.box_losses(box_loss) * weights).sum(-1)
            losses[name] = weighted(box_sum, self.box_weight[name]) / box_divisor
        if self.quality is not None:
            losses["loss_quality"] = self.quality(matched) / box_count
        if self.correlation is not None:
            losses["loss_corr"] = correlation_loss(self.correlation, matched)
        return _output(losses, weights)

    def layers(self, matched: MatchedPredictions) -> CriterionOutput:
        """Compute the losses of each layer, (L,) by name; see `Criterion.layers`."""
        ranked = isinstance(self.cls_loss, DRLoss)
        if ranked or self.quality is not None or self.correlation is not None:
            return super().layers(matched)
        return self(matched)

    def _targets(self, matched: MatchedPredictions) -> Tensor:
        """Return (P,) targets of the positives."""
        if self.target is not None:
            return self.target(matched)
        if getattr(self.cls_loss, "soft_targets", False):
            return PredictedIoU()(matched)
        return matched.logits.new_ones(len(matched.foreground))

    def _count(self, normalizer: str, matched: MatchedPredictions, targets: Tensor) -> Tensor:
        """Return the () number that a normalizer stands for, or (L,) of L layers."""
        count = len(matched.foreground) // (matched.num_layers or 1)
        positives = torch.full((), count, device=matched.labels.device)
        match normalizer:
            case "rows":
                return matched.by_layer(matched.labels >= 0).sum(-1)
            case "positives":
                return positives
            case "positives_per_image":
                return matched.by_layer(matched.positives_per_image.clamp(min=1)).sum(-1)
            case "positives_or_images":
                return positives.clamp(min=matched.num_images)
            case "positives_and_images":
                return positives + matched.num_images
            case "positives_plus_one":
                return positives + 1
            case _:
                return matched.by_layer(targets).sum(-1)


def _compared(cls_loss: ScoreLoss, matched: MatchedPredictions, targets: Tensor) -> Tensor:
    """Return the sum of the losses of all rows and classes, with (P,) targets of positives."""
    logits, labels = at_least_float32(matched.logits), matched.binary_labels()
    dense = labels.clamp(min=0).to(logits.dtype)
    dense.view(-1)[matched.positives] = targets.to(dense.dtype)
    return matched.by_layer(cls_loss(logits, dense).masked_fill(labels < 0, 0.0)).sum(-1)


def _ranked(cls_loss: DRLoss, matched: MatchedPredictions) -> Tensor:
    """Return the () mean loss of the pools; one without rows teaches nothing."""
    size = cls_loss.images_per_pool
    whole = size is None or matched.num_images <= size
    parts = [matched] if size is None or whole else matched.split(size)
    return torch.stack(
        [cls_loss(part.logits, part.binary_labels()) * (part.labels >= 0).any() for part in parts]
    ).mean()


def _output(losses: dict[str, Tensor], box_weights: Tensor) -> CriterionOutput:
    num_positives = len(box_weights) // losses["loss_cls"].numel()
    return CriterionOutput(
        losses,
        box_weights=box_weights,
        cls_total=losses["loss_cls"].detach(),
        metrics=lambda: {"num_positives": num_positives},
    )
