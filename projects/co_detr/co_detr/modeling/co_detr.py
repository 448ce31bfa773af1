"""Co-Deformable-DETR and Co-DINO; with ranking criteria the first is BRS-DETR."""

import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from brloss_d2.errors import InputError
from brloss_d2.modeling import CriterionROIHeads, CriterionRPN
from brloss_d2.projects.co_detr.layers.geometry import FeatureGeometry
from brloss_d2.projects.co_detr.layers.recompute import run
from brloss_d2.projects.co_detr.modeling.boxes import image_scales, pixel_boxes
from brloss_d2.projects.co_detr.modeling.custom_queries import (
    choose_rows,
    count_positives,
    custom_queries,
    region_rows,
)
from brloss_d2.projects.co_detr.modeling.decoder import Queries
from brloss_d2.projects.co_detr.modeling.dense_head import AuxiliaryDenseHead
from brloss_d2.projects.co_detr.modeling.query_head import QueryHead, QueryPredictions
from brloss_d2.projects.co_detr.modeling.query_losses import QueryLosses
from brloss_d2.projects.co_detr.modeling.soft_nms import SoftNMS

# Color of the canvas around an image, as published.
_GRAY = 114


class CoDETR(nn.Module):
    """Deformable DETR or DINO with two collaborative auxiliary heads (Zong et al., ICCV 2023).

    In training, an R-CNN and a one-stage head read the memory of the encoder. Both have their own
    losses, and their foreground boxes become customized queries of the same decoder, which have to
    predict the objects that the heads assigned to these boxes. Inference needs neither head.

    Args:
        backbone: module that maps images to named feature maps.
        neck: module that maps these to a list of maps for the transformer, finest first.
        query_head: encoder, proposals, decoder and customized queries.
        query_losses: losses of decoder layers, proposals and customized queries.
        proposal_generator: region proposal network; its `in_features` name the maps of the
            memory and the coarser one, finest first.
        roi_heads: R-CNN, the first auxiliary head.
        dense_head: one-stage head, the second auxiliary head.
        max_custom: largest number of customized queries per head and image.
        max_detections: number of detections per image.
        suppression: suppression of the best pairs of query and class, as many as there are
            queries, in the size of the original image; None for none.
        canvas_size: side in pixels of the square that all images are padded to and count as, with
            boxes relative to it; None pads to the largest height and width of the batch. For
            large-scale jitter (Ghiasi et al., CVPR 2021).
        recompute_backbone: whether the activations of the backbone are computed again in the
            backward pass instead of being stored.
        pixel_mean: mean of each color, in the order of `input_format`.
        pixel_std: standard deviation of each color, in the order of `input_format`.
        input_format: order of the colors, "RGB" or "BGR".

    Raises:
        InputError: there are denoising queries without a criterion, or the other way round.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        neck: nn.Module,
        query_head: QueryHead,
        query_losses: QueryLosses,
        proposal_generator: CriterionRPN,
        roi_heads: CriterionROIHeads,
        dense_head: AuxiliaryDenseHead,
        max_custom: int = 300,
        max_detections: int = 100,
        suppression: SoftNMS | None = None,
        canvas_size: int | None = None,
        recompute_backbone: bool = False,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str = "RGB",
    ) -> None:
        super().__init__()
        if (query_head.denoising is None) != (query_losses.denoising is None):
            raise InputError(
                "model.query_losses.denoising trains the queries that model.query_head.denoising "
                "makes: set both, or both to null."
            )
        self.backbone, self.neck = backbone, neck
        self.query_head, self.query_losses = query_head, query_losses
        self.proposal_generator, self.roi_heads = proposal_generator, roi_heads
        self.dense_head = dense_head
        self.max_custom, self.max_detections = max_custom, max_detections
        self.suppression, self.canvas_size = suppression, canvas_size
        self.recompute_backbone = recompute_backbone
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        self.input_format = input_format

    @property
    def device(self) -> torch.device:
        """Device of the model, to which inputs are moved."""
        return self.get_buffer("pixel_mean").device

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Compute losses in training, detections otherwise.

        Args:
            batched_inputs: detectron2's dictionaries, with `image` (C, H, W) and, in training,
                `instances`.

        Returns:
            Losses to be summed, or a dictionary per image with `instances` in pixels of the image's
            original size (`height` and `width`, by default those of the input).
        """
        images = self.preprocess_image(batched_inputs)
        maps = run(self.backbone, images.tensor, recompute=self.recompute_backbone)
        features = self.neck(maps)
        geometry = FeatureGeometry.build(features, images.image_sizes, images.tensor.shape[-2:])
        memory = self.query_head.encoder(features, geometry)
        proposals = self.query_head.propose(memory, geometry)
        if self.training:
            objects = [x["instances"].to(self.device) for x in batched_inputs]
            if self.canvas_size is not None:
                objects = [on_canvas(x, self.canvas_size) for x in objects]
            return {
                **self.query_losses.proposal_losses(proposals, objects),
                **self._decoder_losses(proposals.queries, memory, geometry, objects),
                **self._auxiliary_losses(memory, geometry, images, objects),
            }
        predictions = self.query_head.decode(proposals.queries, memory, geometry)
        detections = self.inference(predictions, images.image_sizes)
        return [
            {"instances": self.postprocess(instances, x)}
            for instances, x in zip(detections, batched_inputs, strict=True)
        ]

    @staticmethod
    def kind_of_loss(name: str) -> str:
        """Return the kind of a loss, under which the line of the log adds up dozens of them."""
        if "denoising" in name:
            return "denoising"
        if not name.endswith("_proposals") and not re.fullmatch(r"loss_[^_]+_layer\d+", name):
            return "auxiliary"  # of an auxiliary head, or of the queries made of its boxes
        return "box" if name.startswith(("loss_l1", "loss_giou")) else "class"

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalize images and pad them: to the canvas, or else to the largest of the batch."""
        images = [x["image"].to(self.device) for x in batched_inputs]
        if self.canvas_size is not None:
            images = [pad_to_canvas(image, self.canvas_size) for image in images]
        images = [(image - self.pixel_mean) / self.pixel_std for image in images]
        return ImageList.from_tensors(images)

    def detect_batch(self, images: Tensor) -> dict[str, Tensor]:
        """Detect objects in images of one size: what an exported detector computes.

        Args:
            images: (N, 3, H, W) images as the network takes them.

        Returns:
            The D best detections per image, best first: `boxes` (N, D, 4), XYXY in pixels; `labels`
            (N, D), 0..K-1; `scores` (N, D), 0 where suppression leaves fewer.
        """
        if self.canvas_size is not None:
            images = pad_to_canvas(images, self.canvas_size)
        size = int(images.shape[2]), int(images.shape[3])
        mean, std = self.get_buffer("pixel_mean"), self.get_buffer("pixel_std")
        features = self.neck(self.backbone((images - mean) / std))
        geometry = FeatureGeometry.build(features, [size], size)  # that of every image
        memory = self.query_head.encoder(features, geometry)
        queries = self.query_head.propose(memory, geometry).queries
        predictions = self.query_head.decode(queries, memory, geometry)
        boxes, scores, labels = self._best_pairs(predictions, [size])
        boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([*size[::-1]] * 2))
        if self.suppression is not None:
            kept, scores = self.suppression.of_batch(boxes, scores, labels, self.max_detections)
            boxes, labels = (
                boxes.gather(1, kept[..., None].expand(-1, -1, 4)),
                labels.gather(1, kept),
            )
        return {"boxes": boxes, "labels": labels, "scores": scores}

    def inference(
        self, predictions: QueryPredictions, image_sizes: list[tuple[int, int]]
    ) -> list[Instances]:
        """Take the best pairs of query and class of the last decoder layer, without suppression.

        Args:
            predictions: predictions of the decoder.
            image_sizes: (height, width) of each image in pixels.

        Returns:
            Detections per image by descending score, with boxes in pixels of the network's input:
            `max_detections`, or as many as there are queries if they will be suppressed.
        """
        detections = []
        for size, boxes, scores, classes in zip(
            image_sizes, *self._best_pairs(predictions, image_sizes), strict=True
        ):
            pred_boxes = Boxes(boxes)
            pred_boxes.clip(size)
            detections.append(
                Instances(size, pred_boxes=pred_boxes, scores=scores, pred_classes=classes)
            )
        return detections

    def postprocess(self, detections: Instances, x: dict[str, Any]) -> Instances:
        """Scale detections to the original size of an image, and suppress them there.

        Args:
            detections: detections in pixels of the network's input.
            x: detectron2's dictionary of the image.

        Returns:
            Detections by descending score, `max_detections` or fewer.
        """
        height, width = x["image"].shape[-2:]
        size = x.get("height", height), x.get("width", width)
        if self.canvas_size is None:
            results = detector_postprocess(detections, *size)
        else:
            # Boxes may leave the image, but not the canvas.
            results = Instances(size, **detections.get_fields())
            results.pred_boxes = detections.pred_boxes.clone()
            results.pred_boxes.scale(size[1] / width, size[0] / height)
        if self.suppression is None:
            return results
        return self.suppression(results, self.max_detections)

    def _decoder_losses(
        self, queries: Queries, memory: Tensor, geometry: FeatureGeometry, objects: list[Instances]
    ) -> dict[str, Tensor]:
        """Compute the losses of the decoder for queries of proposals and, before them, of noise."""
        if self.query_head.denoising is None:
            predictions = self.query_head.decode(queries, memory, geometry)
            return self.query_losses.decoder_losses(predictions, objects)
        noisy = self.query_head.denoising(objects)
        predictions = self.query_head.decode(noisy.before(queries), memory, geometry)
        denoised, predictions = predictions.split(noisy.labels.shape[1])
        return {
            **self.query_losses.decoder_losses(predictions, objects),
            **self.query_losses.denoising_losses(denoised, noisy, objects),
        }

    def _best_pairs(
        self, predictions: QueryPredictions, image_sizes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (N, D, 4), not clipped, scores and labels (N, D) of the last layer."""
        probs, boxes = predictions.logits[-1].float().sigmoid(), predictions.boxes[-1].float()
        boxes = pixel_boxes(boxes, image_scales(image_sizes, boxes)[:, None])
        num_queries, num_classes = probs.shape[1:]
        most = self.max_detections if self.suppression is None else num_queries
        count = min(most, num_queries * num_classes)
        scores, index = probs.flatten(1).topk(count)
        rows = index.div(num_classes, rounding_mode="floor")
        return boxes.gather(1, rows[..., None].expand(-1, -1, 4)), scores, index % num_classes

    def _auxiliary_losses(
        self,
        memory: Tensor,
        geometry: FeatureGeometry,
        images: ImageList,
        objects: list[Instances],
    ) -> dict[str, Tensor]:
        """Compute the losses of the auxiliary heads and of their customized queries."""
        maps = self.query_head.pyramid(memory, geometry)
        named = dict(zip(self.proposal_generator.in_features, maps, strict=True))
        proposals, rpn_losses = self.proposal_generator(images, named, objects)
        regions, roi_losses = self.roi_heads(images, named, proposals, objects)
        pooled = [named[name] for name in self.roi_heads.box_in_features]
        dense_losses, anchors = self.dense_head(maps, objects)
        losses = {**rpn_losses, **roi_losses, **dense_losses}
        heads = {"roi": region_rows(regions, pooled, self.roi_heads.box_pooler), "dense": anchors}
        num_classes = self.query_head.num_classes
        labels = [x for handed_over in heads.values() for x in handed_over.labels]
        counts = iter(count_positives(labels, num_classes))
        for number, (name, handed_over) in enumerate(heads.items()):
            positives = list(islice(counts, len(objects)))
            rows = choose_rows(handed_over.labels, num_classes, self.max_custom, counts=positives)
            custom = custom_queries(rows, handed_over, positives, images.image_sizes)
            embed = self.query_head.custom
            features = handed_over.features(rows) if embed.uses_features else None
            queries = embed(custom.boxes, features, number)
            predictions = self.query_head.decode(queries, memory, geometry)
            losses.update(self.query_losses.custom_losses(predictions, custom, objects, name))
        return losses


def pad_to_canvas(image: Tensor, size: int) -> Tensor:
    """Pad an image, or several, with gray to a square, on the right and at the bottom.

    Args:
        image: (..., H, W) image in 0..255, with sides of at most `size`.
        size: side of the square in pixels.

    Raises:
        InputError: the image is larger.
    """
    height, width = image.shape[-2:]
    if max(height, width) > size:
        raise InputError(
            f"An image of {width} x {height} pixels does not fit on the canvas of {size} x {size}: "
            "resize it, or raise model.canvas_size."
        )
    return F.pad(image, (0, size - width, 0, size - height), value=_GRAY)


def on_canvas(objects: Instances, size: int) -> Instances:
    """Return the same objects in an image of the size of the canvas."""
    return Instances((size, size), **objects.get_fields())
