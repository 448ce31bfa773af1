"""What a head gives to a criterion, and what it gets back."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from brloss_d2.losses import BoxLoss


@dataclass(frozen=True)
class MatchedPredictions:
    """R predictions of one head with their matched ground truth; P of them are foreground.

    Attributes:
        logits: (R, K) unbounded class scores, or (R, K + 1) with a background column at the end
            for criteria that ask for one (`Criterion.num_logits`).
        labels: (R,) integers, 0..K-1 foreground class, K background, -1 ignored.
        pred_boxes: (P, 4) decoded boxes of the foreground rows, XYXY in absolute pixels,
            differentiable, in row order.
        gt_boxes: (P, 4) their ground truth.
        num_classes: K.
        pred_deltas: (P, 4) the encoded predictions, for losses on deltas.
        gt_deltas: (P, 4) the encoded ground truth.
        images: (R,) which image of the batch a row belongs to, ascending.
        num_images: images in the batch.
        references: (P, 4) anchors of the foreground rows, XYXY in absolute pixels.
        quality_logits: (P,) of a branch that predicts how good the boxes are, for heads with one.
    """

    logits: Tensor
    labels: Tensor
    pred_boxes: Tensor
    gt_boxes: Tensor
    num_classes: int
    pred_deltas: Tensor | None = None
    gt_deltas: Tensor | None = None
    images: Tensor | None = None
    num_images: int = 1
    references: Tensor | None = None
    quality_logits: Tensor | None = None

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or self.logits.shape[1] - self.num_classes not in (0, 1):
            raise ValueError(
                f"logits must be (R, {self.num_classes}) or (R, {self.num_classes + 1}) for "
                f"{self.num_classes} classes, got {tuple(self.logits.shape)}"
            )
        if self.labels.shape != self.logits.shape[:1]:
            raise ValueError(
                f"labels must be ({len(self.logits)},), one for each row of logits, got "
                f"{tuple(self.labels.shape)}"
            )
        if self.pred_boxes.shape != self.gt_boxes.shape or self.pred_boxes.shape[1:] != (4,):
            raise ValueError(
                "pred_boxes and gt_boxes must both be (P, 4), got "
                f"{tuple(self.pred_boxes.shape)} and {tuple(self.gt_boxes.shape)}"
            )

    def foreground(self) -> Tensor:
        """(P,) indices of the foreground rows."""
        return ((self.labels >= 0) & (self.labels < self.num_classes)).nonzero().squeeze(1)

    @property
    def num_decisions(self) -> Tensor:
        """() how many pairs of a row and a class are not ignored: what is ranked together."""
        return (self.labels >= 0).sum() * self.num_classes

    def binary_labels(self) -> Tensor:
        """(R, K) int8: 1 at the class of a foreground row, -1 all along an ignored row, else 0."""
        classes = torch.arange(self.num_classes, device=self.labels.device)
        one_hot = (self.labels[:, None] == classes).to(torch.int8)
        return one_hot.masked_fill_((self.labels < 0)[:, None], -1)

    def split(self, num_images: int) -> list["MatchedPredictions"]:
        """Groups of `num_images` consecutive images; the last may have fewer."""
        if self.images is None:
            raise ValueError("pools of images need `images`, the image of each row")
        groups = self.images.div(num_images, rounding_mode="floor")
        starts = range(0, self.num_images, num_images)
        return [
            self._part(groups == i, min(num_images, self.num_images - start))
            for i, start in enumerate(starts)
        ]

    def _part(self, rows: Tensor, num_images: int) -> "MatchedPredictions":
        foreground = rows[self.foreground()]
        optional = ("pred_deltas", "gt_deltas", "references", "quality_logits")
        given = {name: getattr(self, name) for name in optional}
        return replace(
            self,
            logits=self.logits[rows],
            labels=self.labels[rows],
            pred_boxes=self.pred_boxes[foreground],
            gt_boxes=self.gt_boxes[foreground],
            images=None,
            num_images=num_images,
            **{name: x[foreground] for name, x in given.items() if x is not None},
        )

    def box_losses(self, box_loss: nn.Module) -> Tensor:
        """(P,): a `BoxLoss` of every foreground row, on boxes or deltas as it needs."""
        if not box_loss.on_deltas:
            return box_loss(self.pred_boxes, self.gt_boxes)
        if self.pred_deltas is None or self.gt_deltas is None:
            raise ValueError(f"{type(box_loss).__name__} needs pred_deltas and gt_deltas")
        return box_loss(self.pred_deltas, self.gt_deltas)


@dataclass(frozen=True)
class CriterionOutput:
    """Losses of one head.

    Attributes:
        losses: named 0-dim losses to be summed. Every criterion returns the same names always.
        box_weights: (P,) detached weight of each foreground row in the box loss.
        cls_total: detached sum of the classification terms, to balance other losses with: ()
            where all images are ranked together, else (N,), for each image that of its pool.
        metrics: detached numbers worth a look, not to be summed.
    """

    losses: dict[str, Tensor]
    box_weights: Tensor
    cls_total: Tensor
    metrics: dict[str, Tensor | float] = field(default_factory=dict)


class Criterion(nn.Module, ABC):
    """Turns the matched predictions of a head into losses. Heads know no more of losses than this.

    The outputs are sigmoids without a background class unless a subclass says otherwise.
    """

    def num_logits(self, num_classes: int) -> int:
        """How many class outputs a head needs for `num_classes` classes."""
        return num_classes

    def predict_probs(self, logits: Tensor) -> Tensor:
        """(R, `num_logits`) logits to (R, K) foreground probabilities in [0, 1]."""
        return logits.sigmoid()

    @abstractmethod
    def forward(self, matched: MatchedPredictions) -> CriterionOutput: ...


# One box loss, or several under the names of their terms.
BoxLosses = BoxLoss | Mapping[str, BoxLoss]


def named_box_losses(box_loss: BoxLosses) -> nn.ModuleDict:
    """The box losses of a criterion by name; a single one is "loss_box_reg"."""
    return nn.ModuleDict({"loss_box_reg": box_loss} if isinstance(box_loss, BoxLoss) else box_loss)
