"""Criteria of the score-based baselines: softmax cross-entropy and sigmoid losses."""

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.criteria.base import Criterion, CriterionOutput, MatchedPredictions
from brloss_d2.losses import BoxLoss, ScoreLoss

_NORMALIZERS = ("rows", "positives")


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
        cls_loss = cls_sum / _count(matched.labels >= 0)
        return _score_output(matched, cls_loss, self.box_loss, self.box_weight, "rows")

    def extra_repr(self) -> str:
        return f"box_weight={self.box_weight}"


class SigmoidCriterion(Criterion):
    """An elementwise loss of K sigmoids, and a box loss: focal loss, or the RPN baseline.

    Args:
        cls_loss: per row and class.
        box_loss: per positive.
        box_weight: weight of the box loss.
        normalizer: both are divided by the number of "rows" that are not ignored (R-CNN), or by the
            number of "positives" (one-stage detectors).
    """

    def __init__(
        self,
        cls_loss: ScoreLoss,
        box_loss: BoxLoss,
        *,
        box_weight: float = 1.0,
        normalizer: str = "positives",
    ):
        super().__init__()
        if normalizer not in _NORMALIZERS:
            raise ValueError(f"normalizer must be one of {_NORMALIZERS}, got {normalizer!r}")
        self.cls_loss, self.box_loss = cls_loss, box_loss
        self.box_weight, self.normalizer = box_weight, normalizer

    def forward(self, matched: MatchedPredictions) -> CriterionOutput:
        logits, targets = matched.logits.float(), matched.binary_labels()
        elementwise = self.cls_loss(logits, targets.clamp(min=0).to(logits.dtype))
        cls_sum = elementwise.masked_fill(targets < 0, 0.0).sum()
        cls_loss = cls_sum / _normalizer(matched, self.normalizer)
        return _score_output(matched, cls_loss, self.box_loss, self.box_weight, self.normalizer)

    def extra_repr(self) -> str:
        return f"box_weight={self.box_weight}, normalizer={self.normalizer!r}"


def _count(mask: Tensor) -> Tensor:
    return mask.sum().clamp(min=1)


def _normalizer(matched: MatchedPredictions, kind: str) -> Tensor | int:
    return _count(matched.labels >= 0) if kind == "rows" else max(1, len(matched.pred_boxes))


def _score_output(
    matched: MatchedPredictions, cls_loss: Tensor, box_loss: BoxLoss, weight: float, kind: str
) -> CriterionOutput:
    boxes = weight * matched.box_losses(box_loss).sum() / _normalizer(matched, kind)
    count = len(matched.pred_boxes)
    return CriterionOutput(
        {"loss_cls": cls_loss, "loss_box_reg": boxes},
        box_weights=torch.ones(count, device=boxes.device),
        cls_total=cls_loss.detach(),
        metrics={"num_positives": count},
    )
