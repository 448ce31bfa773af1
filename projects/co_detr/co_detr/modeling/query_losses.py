"""Losses of sets of queries: decoder layers, proposals and customized queries.

Shape letters: N images, Q queries, K classes, D decoder layers.
"""

from collections.abc import Iterator

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torchvision.ops import box_convert

from brloss_d2.criteria import Criterion, CriterionOutput, MatchedPredictions
from brloss_d2.errors import InputError
from brloss_d2.modeling.matching import image_of_rows, log_metrics
from brloss_d2.projects.co_detr.modeling.boxes import image_scales
from brloss_d2.projects.co_detr.modeling.custom_queries import CustomQueries
from brloss_d2.projects.co_detr.modeling.hungarian import HungarianMatcher
from brloss_d2.projects.co_detr.modeling.query_head import Proposals, QueryPredictions


class QueryLosses(nn.Module):
    """One-to-one matching of queries with objects, and the losses of every layer.

    Predicted boxes are cxcywh relative to the image. Criteria compare boxes in pixels; box losses
    on deltas get the relative boxes.

    Args:
        matcher: one-to-one matching of queries with objects.
        decoder: criterion of the decoder layers.
        encoder: criterion of the proposals.
        custom: criterion of the customized queries.
        weight: factor of all losses.

    Raises:
        InputError: a criterion needs a background class.
    """

    def __init__(
        self,
        *,
        matcher: HungarianMatcher,
        decoder: Criterion,
        encoder: Criterion,
        custom: Criterion,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        for criterion in (decoder, encoder, custom):
            if criterion.num_logits(1) != 1:
                raise InputError(
                    f"{type(criterion).__name__} needs a background class, which queries do not "
                    "have: choose a criterion of sigmoids or a ranking loss."
                )
        self.matcher, self.weight = matcher, weight
        self.decoder, self.encoder, self.custom = decoder, encoder, custom

    def of_decoder(
        self, predictions: QueryPredictions, gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Compute the losses of the decoder, with its own matching per layer.

        The metrics in the log are those of the last layer.

        Returns:
            Losses named `loss_<term>_layer<d>`.
        """
        losses = {}
        for d, (logits, boxes) in enumerate(_layers(predictions)):
            targets = self._match(logits, boxes, gt_instances)
            output = self.decoder(match_queries(logits, boxes, *targets, _sizes(gt_instances)))
            losses.update(self._named(output, f"layer{d}"))
        log_metrics("decoder", output)
        return losses

    def of_proposals(
        self, proposals: Proposals, gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Compute the losses of the encoder, for which all objects are of class 0.

        Returns:
            Losses named `loss_<term>_proposals`.
        """
        logits, boxes = proposals.logits, proposals.boxes
        targets = self._match(logits, boxes, [_of_class_zero(x) for x in gt_instances])
        output = self.encoder(match_queries(logits, boxes, *targets, _sizes(gt_instances)))
        log_metrics("proposals", output)
        return self._named(output, "proposals")

    def of_custom(
        self,
        predictions: QueryPredictions,
        queries: CustomQueries,
        gt_instances: list[Instances],
        head: str,
    ) -> dict[str, Tensor]:
        """Compute the losses of customized queries, which know their objects.

        The metrics in the log are those of the last layer.

        Returns:
            Losses named `loss_<term>_<head>_layer<d>`.
        """
        losses, targets = {}, (queries.labels, queries.gt_boxes)
        for d, (logits, boxes) in enumerate(_layers(predictions)):
            output = self.custom(match_queries(logits, boxes, *targets, _sizes(gt_instances)))
            losses.update(self._named(output, f"{head}_layer{d}"))
        log_metrics(f"{head}_queries", output)
        return losses

    def _named(self, output: CriterionOutput, site: str) -> dict[str, Tensor]:
        return {f"{name}_{site}": self.weight * value for name, value in output.losses.items()}

    @torch.no_grad()
    def _match(
        self, logits: Tensor, boxes: Tensor, gt_instances: list[Instances]
    ) -> tuple[Tensor, Tensor]:
        """Match every image: (N, Q) labels, K for background, and (N, Q, 4) boxes in pixels."""
        pairs = [
            self._match_image(logits[i], boxes[i], objects)
            for i, objects in enumerate(gt_instances)
        ]
        labels, gt_boxes = zip(*pairs, strict=True)
        return torch.stack(labels), torch.stack(gt_boxes)

    def _match_image(
        self, logits: Tensor, boxes: Tensor, objects: Instances
    ) -> tuple[Tensor, Tensor]:
        gt_boxes, gt_classes = objects.gt_boxes.tensor, objects.gt_classes
        assigned = self.matcher(logits, boxes, gt_boxes, gt_classes, objects.image_size)
        foreground = (assigned >= 0).nonzero().squeeze(1)
        labels = torch.full_like(assigned, logits.shape[1])
        labels[foreground] = gt_classes[assigned[foreground]]
        targets = torch.zeros_like(boxes)
        targets[foreground] = gt_boxes[assigned[foreground]].to(targets)
        return labels, targets


def match_queries(
    logits: Tensor,
    boxes: Tensor,
    labels: Tensor,
    gt_boxes: Tensor,
    image_sizes: list[tuple[int, int]],
) -> MatchedPredictions:
    """Pair queries with their ground truth for a criterion.

    Args:
        logits: (N, Q, K) class logits.
        boxes: (N, Q, 4) cxcywh relative to the image.
        labels: (N, Q) 0..K-1 for foreground, K for background, -1 for ignored queries.
        gt_boxes: (N, Q, 4) XYXY in pixels, used for foreground queries only.
        image_sizes: (height, width) of each image in pixels.
    """
    num_images, num_queries, num_classes = logits.shape
    image, query = ((labels >= 0) & (labels < num_classes)).nonzero(as_tuple=True)
    pred, target = boxes[image, query].float(), gt_boxes[image, query].float()
    scales = image_scales(image_sizes, pred)[image]
    return MatchedPredictions(
        logits=logits.flatten(0, 1),
        labels=labels.flatten(),
        pred_boxes=box_convert(pred, "cxcywh", "xyxy") * scales,
        gt_boxes=target,
        num_classes=num_classes,
        pred_deltas=pred,
        gt_deltas=box_convert(target / scales, "xyxy", "cxcywh"),
        images=image_of_rows([num_queries] * num_images, labels.device),
        num_images=num_images,
    )


def _layers(predictions: QueryPredictions) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(predictions.logits, predictions.boxes, strict=True)


def _sizes(gt_instances: list[Instances]) -> list[tuple[int, int]]:
    return [x.image_size for x in gt_instances]


def _of_class_zero(objects: Instances) -> Instances:
    boxes: Boxes = objects.gt_boxes
    classes = torch.zeros_like(objects.gt_classes)
    return Instances(objects.image_size, gt_boxes=boxes, gt_classes=classes)
