"""YOLACT (Bolya et al., ICCV 2019): a one-stage detector whose masks combine prototypes."""

from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from brloss_d2.criteria import CriterionOutput, MaskCriterion, MatchedMasks
from brloss_d2.errors import InputError
from brloss_d2.losses.base import check_types
from brloss_d2.modeling.instance.coefficient_head import CoefficientOutputs
from brloss_d2.modeling.instance.masks import bitmaps, paste_masks
from brloss_d2.modeling.instance.prototypes import PrototypeNet, mask_targets, prototype_masks
from brloss_d2.modeling.instance.semantic_head import SemanticHead
from brloss_d2.modeling.matching import kept_rows, log_metrics
from brloss_d2.modeling.one_stage import DenseMatch, OneStageDetector

# Masks of an image whose intermediate results are kept for the backward pass. Those of more masks
# are computed again.
_MAX_MASKS_KEPT = 128


@META_ARCH_REGISTRY.register()
class YOLACT(OneStageDetector):
    """One-stage detector with masks: each anchor predicts coefficients of prototypes.

    Masks are cropped to boxes, of the objects in training and of the detections in inference.

    Args:
        prototype_net: module from the finest features to prototypes.
        mask_criterion: loss of the masks, balanced against the classes.
        semantic_head: auxiliary segmentation in training; None is none, as with ranking losses.
        masks_by_area: whether the loss of a mask is divided by the share of its box in the image,
            as in the original YOLACT.
        detector: arguments of `OneStageDetector`: `anchor_generator` takes features and the size of
            the image, as `FittedAnchorGenerator` does, `head` is a `CoefficientHead` and
            `postprocessor` a `FastNMSPostprocessor`.
    """

    @configurable
    def __init__(
        self,
        *,
        prototype_net: PrototypeNet,
        mask_criterion: MaskCriterion,
        semantic_head: SemanticHead | None = None,
        masks_by_area: bool = False,
        **detector: Any,
    ):
        super().__init__(**detector)
        check_types(mask_criterion=(mask_criterion, MaskCriterion))
        if prototype_net.num_prototypes != self.head.num_prototypes:
            raise InputError(
                f"model.prototype_net has {prototype_net.num_prototypes} prototypes, model.head "
                f"coefficients of {self.head.num_prototypes}: give both the same number."
            )
        self.prototype_net, self.mask_criterion = prototype_net, mask_criterion
        self.semantic_head, self.masks_by_area = semantic_head, masks_by_area

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Return losses in training, else instances at the size of the original images.

        Args:
            batched_inputs: inputs of detectron2's models. Objects have `gt_masks`, `BitMasks`;
                `height` and `width` are those of the original image.

        Returns:
            Losses by name, or for each image `{"instances": ...}` with `pred_boxes`, `scores`,
            `pred_classes` and `pred_masks` (D, height, width) bool.
        """
        if self.training:
            return super().forward(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        maps = self.backbone(images.tensor)
        features = [maps[name] for name in self.head_in_features]
        detections = self.forward_inference(images, features, self.head(features))
        canvas = tuple(images.tensor.shape[-2:])
        results = []
        for found, inputs in zip(detections, batched_inputs, strict=True):
            height, width = found.image_size
            size = inputs.get("height", height), inputs.get("width", width)
            results.append({"instances": at_original_size(found, canvas, size)})
        return results

    def forward_training(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: CoefficientOutputs,  # type: ignore[override]
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """Compute the losses of classes and boxes, of the masks, and of the semantic head."""
        image_size = tuple(images.tensor.shape[-2:])
        anchors = self.anchor_generator(features, image_size)
        match = self.matcher(anchors, predictions.dense, gt_instances)
        output = self.criterion(match.matched)
        log_metrics("head", output)
        prototypes = self.prototype_net(features[0])
        coefficients = self._rows(predictions).flatten(0, 1)
        masks = self.mask_criterion(
            self._match_masks(prototypes, coefficients, match, output, gt_instances, image_size)
        )
        log_metrics("mask_head", masks)
        losses = {**output.losses, **masks.losses}
        if self.semantic_head is not None:
            losses |= self.semantic_head.losses(features[0], gt_instances, image_size)
        return losses

    def _match_masks(
        self,
        prototypes: Tensor,
        coefficients: Tensor,
        match: DenseMatch,
        output: CriterionOutput,
        gt_instances: list[Instances],
        image_size: tuple[int, int],
    ) -> MatchedMasks:
        """Return the losses of the masks of the foreground anchors.

        Args:
            prototypes: (N, C, h, w) prototypes.
            coefficients: (N R, C) mask coefficients of the anchors of all images.
            match: objects of the anchors.
            output: result of the criterion of classes and boxes.
            gt_instances: objects of each image.
            image_size: height and width of the batch in pixels.
        """
        matched, assigned = match.matched, match.assigned.flatten()
        counts = matched.foreground_counts
        kept: Tensor | slice = slice(None)
        if self.mask_criterion.leaves_out(counts):
            kept, counts = kept_rows(self.mask_criterion.sample(counts, assigned.device), counts)
        foreground = matched.foreground[kept].split(counts)
        losses = [
            self.mask_losses(maps, coefficients[rows], objects, assigned[rows], image_size)
            for maps, rows, objects in zip(prototypes, foreground, gt_instances, strict=True)
        ]
        return MatchedMasks(
            logits=None,
            targets=None,
            weights=output.box_weights[kept],
            cls_total=output.cls_total.expand(len(gt_instances))[matched.images[kept]],
            masks_per_image=counts,
            losses=torch.cat(losses),
        )

    def mask_losses(
        self,
        prototypes: Tensor,
        coefficients: Tensor,
        objects: Instances,
        own: Tensor,
        image_size: tuple[int, int],
    ) -> Tensor:
        """Compare the masks of an image, cropped to the boxes of their objects, with these.

        Args:
            prototypes: (C, h, w) prototypes.
            coefficients: (P, C) coefficients of each mask.
            objects: objects of the image, with `gt_boxes` and `gt_masks`.
            own: (P,) object of each mask.
            image_size: height and width of the batch in pixels.

        Returns:
            (P,) losses.
        """
        map_height, map_width = prototypes.shape[-2:]
        gt_boxes = objects.gt_boxes.tensor
        targets = mask_targets(bitmaps(objects), image_size, (map_height, map_width))

        def compare(coefficients: Tensor, own: Tensor) -> Tensor:
            logits = prototype_masks(prototypes, coefficients, gt_boxes[own], image_size)
            losses = self.mask_criterion.mask_loss(logits, targets[own])
            if not self.masks_by_area:
                return losses
            sides = (gt_boxes[own, 2:] - gt_boxes[own, :2]).clamp(min=1)
            return losses * image_size[0] * image_size[1] / sides.prod(1)

        if len(own) <= _MAX_MASKS_KEPT:
            return compare(coefficients, own)
        parts = zip(coefficients.split(_MAX_MASKS_KEPT), own.split(_MAX_MASKS_KEPT), strict=True)
        return torch.cat([checkpoint(compare, *part, use_reentrant=False) for part in parts])

    def forward_inference(  # type: ignore[override]
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: CoefficientOutputs,
    ) -> list[Instances]:
        """Detect objects in each image, in pixels of the network's input.

        Returns:
            Instances with the fields of `FastNMSPostprocessor` and `mask_logits` (D, h, w).
        """
        image_size = tuple(images.tensor.shape[-2:])
        detections = self.postprocessor.detect(
            self.anchor_generator(features, image_size),
            self.matcher.rows(predictions.dense),
            predict_probs=self.criterion.predict_probs,
            decode=self.matcher.box_transform.apply_deltas,
            image_sizes=images.image_sizes,
        )
        coefficients, prototypes = self._rows(predictions), self.prototype_net(features[0])
        for found, own, maps in zip(detections, coefficients, prototypes, strict=True):
            boxes = found.pred_boxes.tensor
            found.mask_logits = prototype_masks(maps, own[found.anchor_rows], boxes, image_size)
        return detections

    def _rows(self, predictions: CoefficientOutputs) -> Tensor:
        """Return the (N, R, C) coefficients of the anchors of all levels."""
        size = self.head.num_prototypes
        return torch.cat([permute_to_N_HWA_K(x, size) for x in predictions.coefficients], 1)


def at_original_size(
    found: Instances, canvas_size: tuple[int, int], output_size: tuple[int, int]
) -> Instances:
    """Move detections from the network's input to the original image.

    Args:
        found: detections with `pred_boxes`, `scores`, `pred_classes` and `mask_logits`.
        canvas_size: height and width in pixels of what the logits cover, with padding.
        output_size: height and width of the original image.

    Returns:
        Instances of that size, with `pred_masks` instead of logits.
    """
    (height, width), (new_height, new_width) = found.image_size, output_size
    boxes = Boxes(found.pred_boxes.tensor.clone())
    boxes.scale(new_width / width, new_height / height)
    padded = canvas_size != found.image_size
    masks = paste_masks(
        found.mask_logits.float().sigmoid(),
        output_size,
        canvas=canvas_size if padded else None,
        image_size=found.image_size if padded else None,
    )
    return Instances(
        output_size,
        pred_boxes=boxes,
        scores=found.scores,
        pred_classes=found.pred_classes,
        pred_masks=masks,
    )
