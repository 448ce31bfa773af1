"""From the outputs of a one-stage head to the input of its criterion."""

from typing import NamedTuple

import torch
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from detectron2.structures import Boxes, Instances
from torch import Tensor

from brloss_d2.criteria import MatchedPredictions
from brloss_d2.modeling.matching import inside_padded_image, kept_rows, match_predictions
from brloss_d2.modeling.one_stage.assigners import (
    IGNORED,
    AnchorPredictions,
    Assigner,
    LevelAnchors,
)
from brloss_d2.modeling.one_stage.box_coding import DeltaTransform, LogDistanceTransform
from brloss_d2.modeling.one_stage.head import DenseOutputs
from brloss_d2.utils.devices import upload


class DenseMatch(NamedTuple):
    """Predictions next to their ground truth.

    Attributes:
        matched: predictions of all anchors, in the order image, level, anchor.
        assigned: (N, R) index of an object of the image, `BACKGROUND` or `IGNORED`.
    """

    matched: MatchedPredictions
    assigned: Tensor


class DenseMatcher:
    """Assign objects to the anchors of a batch and decode the boxes of the foreground.

    Shapes: N images, R anchors over all levels, K classes, P foreground anchors.

    Args:
        assigner: rule by which objects are assigned to anchors.
        box_transform: encoding of the boxes.
        num_classes: number of foreground classes, K.
        padding_divisor: number of pixels to whose multiples an image itself is padded; anchors
            beyond are ignored. None takes the padding of the batch for background.
        num_logits: number of class outputs per anchor; None is K, without a background class.
    """

    def __init__(
        self,
        assigner: Assigner,
        box_transform: DeltaTransform | LogDistanceTransform,
        *,
        num_classes: int,
        padding_divisor: int | None,
        num_logits: int | None = None,
    ):
        self.assigner, self.box_transform = assigner, box_transform
        self.num_logits = num_logits or num_classes
        self.num_classes, self.padding_divisor = num_classes, padding_divisor

    def __call__(
        self, anchors: list[Boxes], outputs: DenseOutputs, gt_instances: list[Instances]
    ) -> DenseMatch:
        """Match the outputs of a batch.

        Args:
            anchors: anchors of each level.
            outputs: outputs of the head.
            gt_instances: objects of each image, with `gt_boxes` and `gt_classes`.
        """
        rows = self.rows(outputs)
        logits, deltas = torch.cat(rows.logits, 1), torch.cat(rows.deltas, 1)
        all_anchors = LevelAnchors.cat(anchors)
        assigned = self._assign(all_anchors, logits, deltas, gt_instances)
        foreground = (assigned.flatten() >= 0).nonzero().squeeze(1)
        num_anchors = assigned.shape[1]
        image, anchor = foreground // num_anchors, foreground % num_anchors
        # Rows of the objects of the whole batch.
        counts = torch.tensor([len(x) for x in gt_instances])
        starts = upload(counts.cumsum(0) - counts, assigned.device)
        objects = assigned.flatten()[foreground] + starts[image]
        labels = torch.full_like(assigned, self.num_classes)
        labels = labels.masked_fill_(assigned == IGNORED, -1).flatten()
        labels[foreground] = torch.cat([x.gt_classes for x in gt_instances])[objects]
        quality = None
        if rows.quality is not None:
            quality = torch.cat(rows.quality, 1).flatten()[foreground]
        matched = match_predictions(
            logits.flatten(0, 1),
            labels,
            foreground,
            deltas.flatten(0, 1)[foreground],
            all_anchors.boxes[anchor],
            torch.cat([x.gt_boxes.tensor for x in gt_instances])[objects],
            transform=self.box_transform,
            num_classes=self.num_classes,
            rows_per_image=[num_anchors] * len(gt_instances),
            clamp_targets=True,
            quality_logits=quality,
            levels=all_anchors.levels[anchor],
        )
        return DenseMatch(matched, assigned)

    def rows(self, outputs: DenseOutputs) -> DenseOutputs:
        """Permute to (N, R_l, `num_logits`), (N, R_l, 4) and (N, R_l, 1), per level."""
        logits, deltas, quality = outputs
        return DenseOutputs(
            [permute_to_N_HWA_K(x, self.num_logits) for x in logits],
            [permute_to_N_HWA_K(x, 4) for x in deltas],
            quality and [permute_to_N_HWA_K(x, 1) for x in quality],
        )

    @torch.no_grad()
    def _assign(
        self,
        anchors: LevelAnchors,
        logits: Tensor,
        deltas: Tensor,
        gt_instances: list[Instances],
    ) -> Tensor:
        """(N, R) index of an object of the image, `BACKGROUND` or `IGNORED`.

        Args:
            anchors: anchors of an image.
            logits: (N, R, `num_logits`) class logits.
            deltas: (N, R, 4) encoded boxes.
            gt_instances: objects of each image.
        """
        size, divisor, centers = len(anchors), self.padding_divisor, anchors.centers
        rows = torch.arange(size * len(gt_instances), device=centers.device)
        counts = list(anchors.counts) * len(gt_instances)
        if divisor is not None:
            inside = [inside_padded_image(centers, x.image_size, divisor) for x in gt_instances]
            rows, counts = kept_rows(torch.cat(inside), counts)
        levels = len(anchors.counts)
        per_image = [counts[i : i + levels] for i in range(0, len(counts), levels)]
        totals = [sum(x) for x in per_image]
        boxes, level = (x[rows % size] for x in (anchors.boxes, anchors.levels))
        predictions: list[AnchorPredictions | None] = [None] * len(gt_instances)
        if self.assigner.needs_predictions:
            decoded = self.box_transform.apply_deltas(deltas.flatten(0, 1)[rows], boxes)
            pairs = zip(
                logits.flatten(0, 1)[rows].split(totals), decoded.split(totals), strict=True
            )
            predictions = [AnchorPredictions(*pair) for pair in pairs]
        kept = map(LevelAnchors, boxes.split(totals), level.split(totals), per_image)
        found = self.assigner.of_images(list(kept), gt_instances, predictions)
        assigned = rows.new_full((size * len(gt_instances),), IGNORED)
        assigned[rows] = torch.cat(found)
        return assigned.view(-1, size)
