"""One-stage detectors: RetinaNet, ATSS, PAA and FoveaBox are configurations of one class."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from brloss_d2.criteria import Criterion, MatchedPredictions
from brloss_d2.errors import InputError
from brloss_d2.modeling.dense_heads import DeltaTransform, LogDistanceTransform
from brloss_d2.modeling.label_assignment import (
    IGNORED,
    AnchorPredictions,
    Assigner,
    LevelAnchors,
    inside_padded_image,
)
from brloss_d2.modeling.matching import log_metrics, match_predictions
from brloss_d2.modeling.meta_arch.presets import one_stage_parts
from brloss_d2.modeling.postprocessing import DensePostprocessor

Outputs = list[list[Tensor]]


@META_ARCH_REGISTRY.register()
class OneStageDetector(DenseDetector):
    """A detector that predicts for every anchor, or point, of a feature pyramid.

    Shapes: N images, R anchors over all levels, K classes, P foreground anchors.

    Anchors in the padding of the batch are left out before assignment and ignored.

    Args:
        backbone: feature pyramid.
        head: logits and deltas, and quality if the criterion trains it; see `TowerHead`.
        anchor_generator: anchors; a point is a square box around it.
        box_transform: how boxes are encoded.
        assigner: which anchor answers for which object.
        criterion: losses, and the meaning of the logits.
        postprocessor: from outputs to detections.
        num_classes: foreground classes.
        pixel_mean, pixel_std: in the order of `input_format`.
        padding_divisor: images count as padded to multiples of this many pixels; None trains on
            the padding of the batch as well.
        input_format: order of the colours.

    Raises:
        InputError: head and criterion do not fit.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        anchor_generator: nn.Module,
        box_transform: DeltaTransform | LogDistanceTransform,
        assigner: Assigner,
        criterion: Criterion,
        postprocessor: DensePostprocessor,
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        padding_divisor: int | None = 32,
        input_format: str = "RGB",
    ):
        super().__init__(backbone, head, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.anchor_generator, self.box_transform = anchor_generator, box_transform
        self.assigner, self.criterion, self.postprocessor = assigner, criterion, postprocessor
        self.num_classes, self.padding_divisor = num_classes, padding_divisor
        self.input_format = input_format
        _check_fit(head, criterion, num_classes)

    @classmethod
    def from_config(cls, cfg):
        return one_stage_parts(cfg)

    def forward_training(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: Outputs,
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """The criterion's losses over all levels and images at once."""
        anchors = self.anchor_generator(features)
        output = self.criterion(self.match(anchors, predictions, gt_instances))
        log_metrics("head", output)
        return output.losses

    def match(
        self, anchors: list[Boxes], predictions: Outputs, gt_instances: list[Instances]
    ) -> MatchedPredictions:
        """Put predictions beside their ground truth, rows in the order image, level, anchor.

        Args:
            anchors: of each level.
            predictions: outputs of the head.
            gt_instances: per image, with `gt_boxes` and `gt_classes`.
        """
        logits, deltas, *quality = (torch.cat(x, 1) for x in self._rows(predictions))
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
        return replace(
            matched,
            # What the encoding can express is what is asked for.
            gt_boxes=self.box_transform.apply_deltas(matched.gt_deltas, references),
            references=references,
            quality_logits=quality[0][image, anchor].squeeze(1) if quality else None,
        )

    def forward_inference(
        self, images: ImageList, features: list[Tensor], predictions: Outputs
    ) -> list[Instances]:
        """Detections of each image, boxes in pixels of the network's input."""
        anchors = self.anchor_generator(features)
        logits, deltas, *quality = self._rows(predictions)
        return [
            self.postprocessor(
                anchors,
                [self.criterion.predict_probs(level[i].float()) for level in logits],
                [level[i] for level in deltas],
                [level[i, :, 0].float().sigmoid() for level in quality[0]] if quality else None,
                decode=self.box_transform.apply_deltas,
                image_size=size,
            )
            for i, size in enumerate(images.image_sizes)
        ]

    def _rows(self, predictions: Outputs) -> Outputs:
        """Logits, deltas and quality, each a list over levels of (N, R_l, K, 4 or 1)."""
        widths = [self.num_classes, 4, 1][: len(predictions)]
        return self._transpose_dense_predictions(predictions, widths)

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


def _check_fit(head: nn.Module, criterion: Criterion, num_classes: int) -> None:
    if criterion.num_logits(num_classes) != num_classes:
        raise InputError(
            f"{type(criterion).__name__} needs a background class, which one-stage heads do not "
            "have: choose a criterion of sigmoids or a ranking loss."
        )
    has_quality = getattr(head, "has_quality", False)
    if has_quality != (getattr(criterion, "quality", None) is not None):
        raise InputError(
            f"model.head.has_quality is {has_quality}, but model.criterion has "
            f"{'no' if has_quality else 'a'} quality branch to train: set it to {not has_quality}."
        )


def _objects_of(
    gt_instances: list[Instances], assigned: Tensor, image: Tensor
) -> tuple[Tensor, Tensor]:
    """(P, 4) boxes and (P,) classes of the assigned objects of each foreground row."""
    counts = torch.tensor([len(x) for x in gt_instances], device=assigned.device)
    index = assigned + (counts.cumsum(0) - counts)[image]
    boxes = torch.cat([x.gt_boxes.tensor for x in gt_instances])
    classes = torch.cat([x.gt_classes for x in gt_instances])
    return boxes[index], classes[index]
