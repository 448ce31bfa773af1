"""From the outputs of a dense head to what its criterion compares."""

from dataclasses import replace
from typing import NamedTuple

import torch
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from detectron2.structures import Boxes, Instances
from torch import Tensor

from brloss_d2.criteria import MatchedPredictions
from brloss_d2.modeling.matching import inside_padded_image, match_predictions
from brloss_d2.modeling.one_stage.assigners import (
    IGNORED,
    AnchorPredictions,
    Assigner,
    LevelAnchors,
)
from brloss_d2.modeling.one_stage.box_coding import DeltaTransform, LogDistanceTransform

# Maps (N, A C, H, W) of the levels, in one list for each kind of output.
Outputs = list[list[Tensor]]


class DenseMatch(NamedTuple):
    """Predictions beside their ground truth.

    Attributes:
        matched: rows in the order image, level, anchor.
        assigned: (N, R) index of an object of the image, `BACKGROUND` or `IGNORED`.
    """

    matched: MatchedPredictions
    assigned: Tensor


class DenseMatcher:
    """Assigns objects to the anchors of a batch and decodes the boxes of the foreground.

    Shapes: N images, R anchors over all levels, K classes, P foreground anchors.

    Args:
        assigner: which anchor answers for which object.
        box_transform: how boxes are encoded.
        num_classes: foreground classes, K.
        padding_divisor: images count as padded to multiples of this many pixels, and anchors
            beyond are ignored; None takes the padding of the batch for background.
    """

    def __init__(
        self,
        assigner: Assigner,
        box_transform: DeltaTransform | LogDistanceTransform,
        *,
        num_classes: int,
        padding_divisor: int | None,
    ):
        self.assigner, self.box_transform = assigner, box_transform
        self.num_classes, self.padding_divisor = num_classes, padding_divisor

    def __call__(
        self, anchors: list[Boxes], outputs: Outputs, gt_instances: list[Instances]
    ) -> DenseMatch:
        """Match the outputs of a batch.

        Args:
            anchors: of each level.
            outputs: of the head: class logits, deltas and possibly quality logits.
            gt_instances: per image, with `gt_boxes` and `gt_classes`.
        """
        logits, deltas, *quality = (torch.cat(x, 1) for x in self.rows(outputs))
        all_anchors = LevelAnchors.cat(anchors)
        assigned = self._assign(all_anchors, logits, deltas, gt_instances)
        image, anchor = (assigned >= 0).nonzero(as_tuple=True)
        references = all_anchors.boxes[anchor]
        gt_boxes, gt_classes = _objects_of(gt_instances, assigned[image, anchor], image)
        labels = torch.where(assigned == IGNORED, -1, self.num_classes)
        labels[image, anchor] = gt_classes
        matched = match_predictions(
            logits.flatten(0, 1),
            labels.flatten(),
            deltas[image, anchor],
            references,
            gt_boxes,
            transform=self.box_transform,
            num_classes=self.num_classes,
            rows_per_image=[logits.shape[1]] * len(logits),
        )
        matched = replace(
            matched,
            # What the encoding can express is what is asked for.
            gt_boxes=self.box_transform.apply_deltas(matched.gt_deltas, references),
            references=references,
            quality_logits=quality[0][image, anchor].squeeze(1) if quality else None,
        )
        return DenseMatch(matched, assigned)

    def rows(self, outputs: Outputs) -> Outputs:
        """Logits, deltas and quality, each a list over levels of (N, R_l, K, 4 or 1)."""
        widths = [self.num_classes, 4, 1]
        return [
            [permute_to_N_HWA_K(x, width) for x in maps]
            for maps, width in zip(outputs, widths, strict=False)
        ]

    @torch.no_grad()
    def _assign(
        self,
        anchors: LevelAnchors,
        logits: Tensor,
        deltas: Tensor,
        gt_instances: list[Instances],
    ) -> Tensor:
        """(N, R) index of an object, `BACKGROUND` or `IGNORED`."""
        assigned = [
            self._assign_image(anchors, logits[i], deltas[i], objects)
            for i, objects in enumerate(gt_instances)
        ]
        return torch.stack(assigned)

    def _assign_image(
        self, anchors: LevelAnchors, logits: Tensor, deltas: Tensor, objects: Instances
    ) -> Tensor:
        rows = torch.arange(len(anchors), device=anchors.boxes.device)
        if self.padding_divisor is not None:
            kept = inside_padded_image(anchors.centers, objects.image_size, self.padding_divisor)
            rows = kept.nonzero().squeeze(1)
        predictions = None
        if self.assigner.needs_predictions:
            boxes = self.box_transform.apply_deltas(deltas[rows], anchors.boxes[rows])
            predictions = AnchorPredictions(logits[rows], boxes)
        assigned = torch.full_like(anchors.levels, IGNORED)
        assigned[rows] = self.assigner(anchors[rows], objects, predictions)
        return assigned


def _objects_of(
    gt_instances: list[Instances], assigned: Tensor, image: Tensor
) -> tuple[Tensor, Tensor]:
    """(P, 4) boxes and (P,) classes of the assigned objects of each foreground row."""
    counts = torch.tensor([len(x) for x in gt_instances], device=assigned.device)
    index = assigned + (counts.cumsum(0) - counts)[image]
    boxes = torch.cat([x.gt_boxes.tensor for x in gt_instances])
    classes = torch.cat([x.gt_classes for x in gt_instances])
    return boxes[index], classes[index]
