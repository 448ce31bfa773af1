"""What a head gives to a criterion, and what it gets back."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from brloss_d2.losses import BoxLoss, GIoULoss
from brloss_d2.losses.base import (
    ConfiguredModule,
    at_least_float32,
    binary_labels,
    check_tensors,
    check_types,
    check_values,
)
from brloss_d2.losses.box import BoxPairs
from brloss_d2.utils.devices import upload

# Optional attributes with an entry per foreground row.
_PER_POSITIVE = ("pred_deltas", "gt_deltas", "references", "quality_logits", "levels", "quality")


@dataclass(frozen=True)
class MatchedPredictions:
    """R predictions of one head with their matched ground truth; P of them are foreground.

    Rows of an image are contiguous, so that pools of images are views.

    Attributes:
        logits: (R, K) class logits, or (R, K + 1) with a background column at the end for criteria
            that ask for one (`Criterion.num_logits`).
        labels: (R,) integers: 0..K-1 foreground class, K background, -1 ignored.
        pred_boxes: (P, 4) decoded boxes of the foreground rows, XYXY in absolute pixels,
            differentiable, in row order; None if the head predicts no boxes.
        gt_boxes: (P, 4) ground-truth boxes of the foreground rows, XYXY in absolute pixels.
        num_classes: K.
        foreground: (P,) int64 foreground rows, ascending; trusted, as are the labels then. If
            None, they are searched for, which makes the host wait for a GPU.
        rows_per_image: number of rows of each image, in order; None is one image.
        pred_deltas: (P, 4) encoded predictions, for losses on deltas.
        gt_deltas: (P, 4) encoded ground truth.
        references: (P, 4) anchors of the foreground rows, XYXY in absolute pixels.
        quality_logits: (P,) logits of a branch that predicts the quality of the boxes.
        levels: (P,) int64 pyramid level of each foreground row, 0 the finest.
        quality: (P,) quality in [0, 1] of each foreground row, detached, such as the Dice
            coefficient of its mask; None is the IoU of its boxes.
        num_layers: L, if the predictions are those of L layers of a decoder, one layer after the
            other, each with the same numbers of images, rows and foreground rows; every layer has
            losses of its own then (`Criterion.layers`). None is one set of predictions.

    Raises:
        ValueError: If shapes, types or labels do not fit.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
        >>> labels = torch.tensor([2, 0, -1])  # background, class 0, ignored
        >>> matched = MatchedPredictions(torch.zeros(3, 2), labels, boxes, boxes, num_classes=2)
        >>> matched.binary_labels().tolist()
        [[0, 0], [1, 0], [-1, -1]]
    """

    logits: Tensor
    labels: Tensor
    pred_boxes: Tensor | None
    gt_boxes: Tensor
    num_classes: int
    foreground: Tensor = None  # type: ignore[assignment]
    rows_per_image: Sequence[int] | None = None
    pred_deltas: Tensor | None = None
    gt_deltas: Tensor | None = None
    references: Tensor | None = None
    quality_logits: Tensor | None = None
    levels: Tensor | None = None
    quality: Tensor | None = None
    num_layers: int | None = None

    def __post_init__(self) -> None:
        """Check the arguments and find the foreground."""
        check_types(num_classes=(self.num_classes, int))
        optional = ("foreground", "pred_boxes", *_PER_POSITIVE)
        given = {name: x for name in optional if (x := getattr(self, name)) is not None}
        check_tensors(logits=self.logits, labels=self.labels, gt_boxes=self.gt_boxes, **given)
        lengths = {name: len(x) for name, x in given.items() if len(x) != len(self.gt_boxes)}
        if lengths.keys() - {"foreground", "pred_boxes"}:
            raise ValueError(
                f"expected one entry for each of the {len(self.gt_boxes)} boxes, got {lengths}"
            )
        if self.logits.ndim != 2 or self.logits.shape[1] - self.num_classes not in (0, 1):
            raise ValueError(
                f"logits must be (R, {self.num_classes}) or (R, {self.num_classes + 1}) for "
                f"{self.num_classes} classes, got {tuple(self.logits.shape)}"
            )
        if self.labels.shape != self.logits.shape[:1] or self.labels.is_floating_point():
            raise ValueError(
                f"labels must be ({len(self.logits)},), one integer for each row of logits, got "
                f"{self.labels.dtype} {tuple(self.labels.shape)}"
            )
        boxes = self.gt_boxes if self.pred_boxes is None else self.pred_boxes
        if boxes.shape != self.gt_boxes.shape or boxes.shape[1:] != (4,):
            raise ValueError(
                "pred_boxes and gt_boxes must both be (P, 4), got "
                f"{tuple(boxes.shape)} and {tuple(self.gt_boxes.shape)}"
            )
        counts = self.rows_per_image
        if counts is not None and (sum(counts) != len(self.labels) or min(counts, default=0) < 0):
            raise ValueError(
                f"rows_per_image must be counts that add up to {len(self.labels)} rows, got "
                f"{list(counts)}"
            )
        if self.foreground is None:
            check_values(
                "labels",
                self.labels,
                -1,
                self.num_classes,
                f"a class of 0..{self.num_classes - 1}, {self.num_classes} (background) or -1 "
                "(ignored)",
            )
            rows = ((self.labels >= 0) & (self.labels < self.num_classes)).nonzero().squeeze(1)
            object.__setattr__(self, "foreground", rows)
        if len(self.foreground) != len(self.gt_boxes):
            raise ValueError(
                f"expected one box for each of the {len(self.foreground)} foreground rows, got "
                f"{len(self.gt_boxes)}"
            )

    @property
    def num_images(self) -> int:
        """Number of images, N: of each layer if there are several."""
        counts = [len(self.labels)] if self.rows_per_image is None else self.rows_per_image
        return len(counts) // (self.num_layers or 1)

    @cached_property
    def positives(self) -> Tensor:
        """(P,) positions of the foreground decisions in the flat (R * K,) logits, ascending."""
        return self.foreground * self.num_classes + self.labels[self.foreground]

    @property
    def positives_per_image(self) -> Tensor:
        """(N,) number of foreground rows of each image."""
        ends = torch.searchsorted(self.foreground, self._image_ends)
        return ends.diff(prepend=ends.new_zeros(1))

    @cached_property
    def foreground_counts(self) -> list[int]:
        """Number of foreground rows of each image; the host waits for a GPU, once."""
        return self.positives_per_image.tolist()

    @cached_property
    def _image_ends(self) -> Tensor:
        """(N,) number of rows up to the end of each image."""
        counts = [len(self.labels)] if self.rows_per_image is None else self.rows_per_image
        return upload(torch.tensor(counts, dtype=torch.int64).cumsum(0), self.labels.device)

    @property
    def positive_scores(self) -> Tensor:
        """(P,) score of each foreground row at its own class, in at least float32."""
        return at_least_float32(
            self.logits[self.foreground, self.labels[self.foreground]]
        ).sigmoid()

    @property
    def images(self) -> Tensor:
        """(P,) int64 image of each foreground row."""
        return torch.searchsorted(self._image_ends, self.foreground, right=True)

    @property
    def objects(self) -> Tensor:
        """(P,) int64 object of each foreground row, from 0; equal boxes of a class are one object.

        Makes the host wait for a GPU.
        """
        classes = self.labels[self.foreground]
        keys = torch.cat([torch.stack([self.images, classes], 1), self.gt_boxes], 1)
        return torch.unique(keys, dim=0, return_inverse=True)[1]

    @property
    def num_decisions(self) -> Tensor:
        """() number of pairs of a row and a class that are not ignored: the size of the pool."""
        return self.by_layer(self.labels >= 0).sum(-1) * self.num_classes

    def by_layer(self, x: Tensor) -> Tensor:
        """Flatten a tensor of all rows, all decisions or all foreground rows: (L, n), or (n,)."""
        return x.flatten() if self.num_layers is None else x.reshape(self.num_layers, -1)

    @property
    def row_labels(self) -> Tensor:
        """(R,) `labels`, for losses of all decisions, whose logits (R, K) they label.

        Raises:
            ValueError: If the logits have a background column.
        """
        if self.logits.shape[1] != self.num_classes:
            raise ValueError(
                f"expected logits (R, {self.num_classes}) without a background column, got "
                f"{tuple(self.logits.shape)}"
            )
        return self.labels

    def binary_labels(self, positives: Tensor | None = None) -> Tensor:
        """(R, K) int8: 1 at the class of a foreground row, -1 in all of an ignored row, else 0.

        Args:
            positives: positions of the decisions with label 1; None is `self.positives`.

        Raises:
            ValueError: If the logits have a background column.
        """
        positives = self.positives if positives is None else positives
        return binary_labels(self.row_labels, self.num_classes, positives).view(self.logits.shape)

    def split(self, images_per_pool: int) -> list["MatchedPredictions"]:
        """Split into pools of consecutive images, without copies; the last pool may be smaller.

        Makes the host wait for a GPU, once.

        Raises:
            ValueError: If `rows_per_image` is None.
        """
        if self.rows_per_image is None:
            raise ValueError("pools of images need rows_per_image, the number of rows per image")
        counts = self.foreground_counts
        first = range(0, self.num_images, images_per_pool)
        return self._parts(images_per_pool, [sum(counts[i : i + images_per_pool]) for i in first])

    def layers(self) -> list["MatchedPredictions"]:
        """Split into the layers, without copies and waits."""
        count = self.num_layers or 1
        return self._parts(self.num_images, [len(self.foreground) // count] * count)

    def _parts(self, num_images: int, counts: list[int]) -> list["MatchedPredictions"]:
        """Split into parts of so many images, the last one possibly of fewer.

        Args:
            num_images: number of images of a part.
            counts: number of foreground rows of each part.
        """
        optional = ("pred_boxes", *_PER_POSITIVE)
        given = {name: x for name in optional if (x := getattr(self, name)) is not None}
        all_rows = [len(self.labels)] if self.rows_per_image is None else self.rows_per_image
        parts, row, positive = [], 0, 0
        for number, count in enumerate(counts):
            rows_per_image = all_rows[number * num_images : (number + 1) * num_images]
            rows = slice(row, row + sum(rows_per_image))
            kept = slice(positive, positive + count)
            parts.append(
                replace(
                    self,
                    logits=self.logits[rows],
                    labels=self.labels[rows],
                    gt_boxes=self.gt_boxes[kept],
                    foreground=self.foreground[kept] - row,
                    rows_per_image=rows_per_image,
                    num_layers=None,
                    **{name: x[kept] for name, x in given.items()},
                )
            )
            row, positive = rows.stop, kept.stop
        return parts

    @torch.no_grad()
    def localization_quality(self) -> Tensor:
        """(P,) `quality` of each foreground row, or the IoU of its boxes.

        Raises:
            ValueError: If there is neither.
        """
        if self.quality is not None:
            return self.quality
        if self.pred_boxes is None:
            raise ValueError("predictions without boxes need `quality`")
        return self._box_pairs.iou()

    @cached_property
    def _box_pairs(self) -> BoxPairs:
        """Predicted and true boxes, whose areas quality and losses share; for heads with boxes."""
        return BoxPairs(self.pred_boxes, self.gt_boxes)  # type: ignore[arg-type]

    def above_zero(self, quality: Tensor) -> list[Tensor]:
        """Find the foreground rows of quality above 0; the host waits for a GPU once.

        The copy that it waits for brings `foreground_counts` along.

        Args:
            quality: (L, P / L) quality of the foreground rows of each layer.

        Returns:
            (P',) int64 indices of the entries above 0 of each layer, ascending.
        """
        above = quality > 0
        order = above.byte().argsort(dim=1, descending=True, stable=True)
        counts = torch.cat([above.sum(1), self.positives_per_image]).tolist()
        vars(self)["foreground_counts"] = counts[len(order) :]
        return [row[:count] for row, count in zip(order, counts, strict=False)]

    def box_losses(self, box_loss: nn.Module) -> Tensor:
        """(P,) loss of every foreground row by a `BoxLoss`, of its boxes or its deltas."""
        if not box_loss.on_deltas:
            if self.pred_boxes is None:
                raise ValueError(f"{type(box_loss).__name__} needs pred_boxes")
            if type(box_loss) is GIoULoss:  # of areas that the quality needs, too
                return self._box_pairs.giou_loss()
            return box_loss(self.pred_boxes, self.gt_boxes)
        if self.pred_deltas is None or self.gt_deltas is None:
            raise ValueError(f"{type(box_loss).__name__} needs pred_deltas and gt_deltas")
        return box_loss(self.pred_deltas, self.gt_deltas)


Metrics = dict[str, Tensor | float]


@dataclass(frozen=True)
class CriterionOutput:
    """Losses of one head.

    Attributes:
        losses: 0-dim losses by name, to be summed, or (L,) losses of L layers. A criterion always
            returns the same names.
        box_weights: (P,) detached weight of each foreground row in the box loss.
        cls_total: detached sum of the classification terms, to balance other losses against: () if
            all images are ranked together, else (N,), that of the pool of each image.
        metrics: function that returns detached numbers for the log, by name; they are computed only
            in the iterations that are logged. Of several layers they are those of the last one.

    Example:
        >>> total = torch.tensor(1.5)
        >>> output = CriterionOutput({"loss_rank": total}, torch.ones(2), total)
        >>> sum(output.losses.values())
        tensor(1.5000)
    """

    losses: dict[str, Tensor]
    box_weights: Tensor
    cls_total: Tensor
    metrics: Callable[[], Metrics] = dict


class Criterion(ConfiguredModule, ABC):
    """Base class: turns the matched predictions of a head into losses.

    A head knows no more of losses than this. Its outputs are sigmoids without a background class
    unless a subclass says otherwise.

    Example:
        >>> class MeanLogit(Criterion):
        ...     def forward(self, matched):
        ...         loss = matched.logits.mean()
        ...         weights = torch.ones(len(matched.foreground))
        ...         return CriterionOutput({"loss_cls": loss}, weights, loss.detach())
        >>> MeanLogit().num_logits(80)
        80
    """

    @property
    def needs_deltas(self) -> bool:
        """Whether the criterion reads `gt_deltas`, which an R-CNN encodes only then."""
        return True

    def num_logits(self, num_classes: int) -> int:
        """Return the number of class outputs that a head needs for `num_classes` classes."""
        return num_classes

    def predict_probs(self, logits: Tensor) -> Tensor:
        """Turn logits (R, `num_logits`) into foreground probabilities (R, K) in [0, 1]."""
        return logits.sigmoid()

    @abstractmethod
    def forward(self, matched: Any) -> CriterionOutput:
        """Compute the losses of `MatchedPredictions` (or, in the mask branch, `MatchedMasks`)."""

    def layers(self, matched: MatchedPredictions) -> CriterionOutput:
        """Compute the losses of each of `matched.num_layers` layers, (L,) by name.

        They are those of every layer alone. Criteria that can compute them together do so, with
        about as many operators as one layer takes.
        """
        outputs = [self(layer) for layer in matched.layers()]
        return CriterionOutput(
            {name: torch.stack([o.losses[name] for o in outputs]) for name in outputs[0].losses},
            box_weights=torch.cat([o.box_weights for o in outputs]),
            cls_total=torch.stack([o.cls_total for o in outputs]),
            metrics=outputs[-1].metrics,
        )


def of_last_layer(output: CriterionOutput) -> CriterionOutput:
    """Replace the metrics of several layers, (L,) each, by those of the last one."""
    metrics = output.metrics
    return replace(
        output,
        metrics=lambda: {
            name: x[-1] if isinstance(x, Tensor) and x.ndim else x for name, x in metrics().items()
        },
    )


def weighted(loss: Tensor, weight: float) -> Tensor:
    """Return `weight * loss`, without an operation if the weight is 1."""
    return loss if weight == 1 else weight * loss


# One box loss, or several under the names of their terms; none for a head without boxes.
BoxLosses = BoxLoss | Mapping[str, BoxLoss]


def named_box_losses(box_loss: BoxLosses) -> nn.ModuleDict:
    """Return the box losses of a criterion by name; a single one is named "loss_box_reg".

    Raises:
        ValueError: If one of them is no `BoxLoss`.
    """
    named = box_loss if isinstance(box_loss, Mapping) else {"loss_box_reg": box_loss}
    check_types(**{f"box_loss ({name})": (loss, BoxLoss) for name, loss in named.items()})
    return nn.ModuleDict(named)
