"""Co-Deformable-DETR; with ranking criteria it is BRS-DETR."""

from collections.abc import Sequence

import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torchvision.ops import box_convert

from brloss_d2.modeling import CriterionROIHeads, CriterionRPN
from brloss_d2.projects.co_detr.modeling.boxes import image_scales
from brloss_d2.projects.co_detr.modeling.custom_queries import (
    CustomQueries,
    choose_rows,
    custom_queries,
)
from brloss_d2.projects.co_detr.modeling.dense_head import AuxiliaryDenseHead
from brloss_d2.projects.co_detr.modeling.geometry import FeatureGeometry
from brloss_d2.projects.co_detr.modeling.head_rows import HeadRows, region_rows
from brloss_d2.projects.co_detr.modeling.query_head import (
    CoDeformableHead,
    Queries,
    QueryPredictions,
)
from brloss_d2.projects.co_detr.modeling.query_losses import QueryLosses

# The pyramid made of the memory begins with p3, of stride 8.
_FINEST_LEVEL = 3


class CoDETR(nn.Module):
    """Deformable DETR with two collaborating heads (Zong et al., ICCV 2023).

    In training an R-CNN and a one-stage head read the memory of the encoder. Both give their own
    losses, and their foreground boxes become further queries of the same decoder, with the objects
    that the heads assigned. Detections need neither of them.

    Args:
        backbone: named feature maps.
        neck: projects them to the levels of the transformer.
        query_head: encoder, proposals and decoder.
        query_losses: losses of decoder, proposals and customized queries.
        proposal_generator: region proposals; reads p3 and up.
        roi_heads: the R-CNN; the first whose foreground becomes queries.
        dense_head: the one-stage head; the second.
        max_custom: customized queries of a head, at most, in an image.
        max_detections: kept an image.
        pixel_mean, pixel_std: in the order of `input_format`.
        input_format: order of the colors.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        neck: nn.Module,
        query_head: CoDeformableHead,
        query_losses: QueryLosses,
        proposal_generator: CriterionRPN,
        roi_heads: CriterionROIHeads,
        dense_head: AuxiliaryDenseHead,
        max_custom: int = 300,
        max_detections: int = 100,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str = "RGB",
    ):
        super().__init__()
        self.backbone, self.neck = backbone, neck
        self.query_head, self.query_losses = query_head, query_losses
        self.proposal_generator, self.roi_heads = proposal_generator, roi_heads
        self.dense_head = dense_head
        self.max_custom, self.max_detections = max_custom, max_detections
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        self.input_format = input_format

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Losses in training, else detections.

        Args:
            batched_inputs: in detectron2's format, with `image` (C, H, W) and, in training,
                `instances`.

        Returns:
            Losses to be summed; or for each image `instances` in pixels of its original size.
        """
        images = self.preprocess_image(batched_inputs)
        features = self.neck(self.backbone(images.tensor))
        geometry = FeatureGeometry.build(features, images.image_sizes, images.tensor.shape[-2:])
        memory = self.query_head.encode(features, geometry)
        proposals = self.query_head.propose(memory, geometry)
        predictions = self.query_head.decode(proposals.queries, memory, geometry)
        if not self.training:
            found = self.inference(predictions, images.image_sizes)
            return _in_original_size(found, batched_inputs)
        objects = [x["instances"].to(self.device) for x in batched_inputs]
        return {
            **self.query_losses.of_proposals(proposals, objects),
            **self.query_losses.of_decoder(predictions, objects),
            **self._auxiliary_losses(memory, geometry, images, objects),
        }

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """Normalize, and pad to the largest height and width of the batch."""
        images = [x["image"].to(self.device) for x in batched_inputs]
        images = [(image - self.pixel_mean) / self.pixel_std for image in images]
        return ImageList.from_tensors(images)

    def inference(
        self, predictions: QueryPredictions, image_sizes: list[tuple[int, int]]
    ) -> list[Instances]:
        """The best pairs of query and class of the last layer, without suppression.

        Returns:
            Detections by descending score, boxes in pixels of the network's input.
        """
        probs, boxes = predictions.logits[-1].float().sigmoid(), predictions.boxes[-1].float()
        boxes = box_convert(boxes, "cxcywh", "xyxy") * image_scales(image_sizes, boxes)[:, None]
        num_classes = probs.shape[-1]
        count = min(self.max_detections, probs[0].numel())
        scores, index = probs.flatten(1).topk(count)
        found = []
        for i, size in enumerate(image_sizes):
            pred_boxes = Boxes(boxes[i, index[i].div(num_classes, rounding_mode="floor")])
            pred_boxes.clip(size)
            classes = index[i] % num_classes
            found.append(
                Instances(size, pred_boxes=pred_boxes, scores=scores[i], pred_classes=classes)
            )
        return found

    def _auxiliary_losses(
        self,
        memory: Tensor,
        geometry: FeatureGeometry,
        images: ImageList,
        objects: list[Instances],
    ) -> dict[str, Tensor]:
        """Losses of the auxiliary heads, and of the queries that they hand over."""
        maps = self.query_head.pyramid(memory, geometry)
        named = {f"p{_FINEST_LEVEL + i}": x for i, x in enumerate(maps)}
        proposals, rpn_losses = self.proposal_generator(images, named, objects)
        regions, roi_losses = self.roi_heads(images, named, proposals, objects)
        pooled = [named[name] for name in self.roi_heads.box_in_features]
        dense_losses, anchors = self.dense_head(maps, objects)
        losses = {**rpn_losses, **roi_losses, **dense_losses}
        heads = {"roi": region_rows(regions, pooled, self.roi_heads.box_pooler), "dense": anchors}
        for number, (name, rows) in enumerate(heads.items()):
            queries, custom = self._custom_queries(number, rows, images.image_sizes)
            predictions = self.query_head.decode(queries, memory, geometry)
            losses.update(self.query_losses.of_custom(predictions, custom, objects, name))
        return losses

    def _custom_queries(
        self, number: int, handed_over: HeadRows, image_sizes: list[tuple[int, int]]
    ) -> tuple[Queries, CustomQueries]:
        """Make queries of the foreground of auxiliary head `number`."""
        boxes, labels, gt_boxes = handed_over.boxes, handed_over.labels, handed_over.gt_boxes
        rows = choose_rows(labels, self.query_head.num_classes, self.max_custom)
        custom = custom_queries(rows, boxes, labels, gt_boxes, image_sizes)
        features = handed_over.features(rows)
        return self.query_head.embed_custom(custom.boxes, features, number), custom


def _in_original_size(found: list[Instances], batched_inputs: list[dict]) -> list[dict]:
    """Detections in pixels of the images as they were before resizing."""
    results = []
    for instances, x in zip(found, batched_inputs, strict=True):
        height, width = (
            x.get("height", instances.image_size[0]),
            x.get("width", instances.image_size[1]),
        )
        results.append({"instances": detector_postprocess(instances, height, width)})
    return results
