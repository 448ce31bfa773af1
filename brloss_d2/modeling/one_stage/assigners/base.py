"""Interface of the assigners of one-stage detectors."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from brloss_d2.utils.devices import upload

BACKGROUND = -1
IGNORED = -2
# Number of objects compared with all anchors at once: bounds the memory.
OBJECTS_AT_ONCE = 16


@dataclass(frozen=True)
class LevelAnchors:
    """The R anchors of an image, those of the finest level first.

    Attributes:
        boxes: (R, 4) XYXY in pixels. A point of an anchor-free head is a box around it.
        levels: (R,) int64 pyramid level of each anchor, 0 the finest; ascending.
        counts: number of anchors of each level; they add up to R.
    """

    boxes: Tensor
    levels: Tensor
    counts: Sequence[int]

    @classmethod
    def cat(cls, anchors: list[Boxes]) -> "LevelAnchors":
        """Concatenate the anchors of all levels, as an anchor generator returns them."""
        boxes, counts = Boxes.cat(anchors).tensor, [len(level) for level in anchors]
        levels = torch.arange(len(anchors), device=boxes.device).repeat_interleave(
            upload(torch.tensor(counts), boxes.device), output_size=len(boxes)
        )
        return cls(boxes, levels, counts)

    @property
    def centers(self) -> Tensor:
        """(R, 2) x and y in pixels."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    def __getitem__(self, rows: Tensor) -> "LevelAnchors":
        """Select rows, ascending; the host waits for a GPU."""
        levels = self.levels[rows]
        counts = torch.bincount(levels, minlength=len(self.counts)).tolist()
        return LevelAnchors(self.boxes[rows], levels, counts)

    def __len__(self) -> int:
        """Number of anchors, R."""
        return len(self.boxes)


@dataclass(frozen=True)
class AnchorPredictions:
    """Predictions of a head for the R anchors of an image, without gradient.

    Attributes:
        logits: (R, K) class logits.
        boxes: (R, 4) decoded boxes, XYXY in pixels.
    """

    logits: Tensor
    boxes: Tensor

    def __getitem__(self, rows: Tensor) -> "AnchorPredictions":
        """Select rows."""
        return AnchorPredictions(self.logits[rows], self.boxes[rows])


class Assigner(ABC):
    """Base class: assigns each anchor of an image an object, or none.

    Attributes:
        needs_predictions: whether the assignment depends on the predictions of the head.
    """

    needs_predictions: ClassVar[bool] = False

    @abstractmethod
    def __call__(
        self,
        anchors: LevelAnchors,
        objects: Instances,
        predictions: AnchorPredictions | None = None,
    ) -> Tensor:
        """Assign R anchors.

        Args:
            anchors: anchors inside the image, not in the padding of its batch.
            objects: G ground-truth objects with `gt_boxes` and `gt_classes`; G may be 0.
            predictions: predictions for the anchors, if `needs_predictions`.

        Returns:
            (R,) int64: index of an object, `BACKGROUND` or `IGNORED`.
        """

    def of_images(
        self,
        anchors: Sequence[LevelAnchors],
        objects: Sequence[Instances],
        predictions: Sequence[AnchorPredictions | None],
    ) -> list[Tensor]:
        """Assign the anchors of each image of a batch; arguments as for one image, in lists.

        Assigners that ask a GPU for numbers override this, to ask once for all images.
        """
        return list(map(self, anchors, objects, predictions))

    def required(self, predictions: AnchorPredictions | None) -> AnchorPredictions:
        """Return the predictions, for an assigner that needs them.

        Raises:
            ValueError: If there are none.
        """
        if predictions is None:
            raise ValueError(f"{type(self).__name__} needs the predictions of the head, got None")
        return predictions


def background(anchors: LevelAnchors) -> Tensor:
    """Return (R,) `BACKGROUND`."""
    return torch.full_like(anchors.levels, BACKGROUND)


def depth_inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Compute the distance of points from the nearest side of boxes, below 0 outside.

    Args:
        points: (..., 2) x and y in pixels.
        boxes: (..., 4) XYXY in pixels.

    Returns:
        (...) distances in pixels.
    """
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1).amin(-1)


def largest_iou_wins(anchors: LevelAnchors, rows: Tensor, owners: Tensor, iou: Tensor) -> Tensor:
    """Assign claimed anchors to the object of the largest IoU, the first of equal ones.

    Args:
        anchors: R anchors.
        rows: (C,) rows of the claimed anchors.
        owners: (C,) objects that claim them.
        iou: (C,) IoU of object and anchor, or of object and prediction, >= 0; -1 is no claim.

    Returns:
        (R,) int64: index of an object or `BACKGROUND`.
    """
    assigned = background(anchors)
    best = iou.new_full(assigned.shape, -1.0).scatter_reduce_(0, rows, iou, "amax")
    wins = (iou == best[rows]) & (iou >= 0)
    none = torch.iinfo(torch.int64).max
    first = torch.full_like(assigned, none)
    first.scatter_reduce_(0, rows, owners.where(wins, none), "amin")
    return torch.where(first < none, first, assigned)
