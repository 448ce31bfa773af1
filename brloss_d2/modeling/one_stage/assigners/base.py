"""What all assigners of one-stage detectors share: one call, one kind of answer."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

BACKGROUND = -1
IGNORED = -2


@dataclass(frozen=True)
class LevelAnchors:
    """The R anchors of an image, those of the finest level first.

    Attributes:
        boxes: (R, 4) XYXY in pixels. A point of an anchor-free head is a box around it.
        levels: (R,) int64, the pyramid level of each, 0 the finest; ascending.
    """

    boxes: Tensor
    levels: Tensor

    @classmethod
    def cat(cls, anchors: list[Boxes]) -> "LevelAnchors":
        """Put together the anchors of all levels, as an anchor generator gives them."""
        boxes = Boxes.cat(anchors).tensor
        counts = torch.tensor([len(level) for level in anchors], device=boxes.device)
        levels = torch.arange(len(anchors), device=boxes.device)
        return cls(boxes, levels.repeat_interleave(counts, output_size=len(boxes)))

    @property
    def centers(self) -> Tensor:
        """(R, 2) x and y in pixels."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    def __getitem__(self, rows: Tensor) -> "LevelAnchors":
        return LevelAnchors(self.boxes[rows], self.levels[rows])

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class AnchorPredictions:
    """What a head predicts for the R anchors of an image, without gradient.

    Attributes:
        logits: (R, K) class scores.
        boxes: (R, 4) decoded boxes, XYXY in pixels.
    """

    logits: Tensor
    boxes: Tensor

    def __getitem__(self, rows: Tensor) -> "AnchorPredictions":
        return AnchorPredictions(self.logits[rows], self.boxes[rows])


class Assigner(ABC):
    """Says for each anchor of an image which object it answers for.

    Attributes:
        needs_predictions: whether it looks at what the head predicts.
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
            anchors: those inside the image, not in the padding of its batch.
            objects: G ground-truth objects with `gt_boxes` and `gt_classes`; G may be 0.
            predictions: given where `needs_predictions`.

        Returns:
            (R,) int64: index of an object, `BACKGROUND` or `IGNORED`.
        """


def background(anchors: LevelAnchors) -> Tensor:
    """(R,) all background."""
    return torch.full_like(anchors.levels, BACKGROUND)
