"""Losses of sets of queries: decoder layers, proposals and customized queries.

Shape letters: N images, Q queries, K classes, D decoder layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from brloss_d2.criteria import Criterion, MatchedPredictions
from brloss_d2.errors import InputError
from brloss_d2.modeling.matching import log_metrics
from brloss_d2.projects.co_detr.modeling.boxes import (
    centers_and_sizes,
    image_scales,
    pixel_boxes,
)
from brloss_d2.projects.co_detr.modeling.custom_queries import CustomQueries
from brloss_d2.projects.co_detr.modeling.denoising import NoisyQueries
from brloss_d2.projects.co_detr.modeling.hungarian import HungarianMatcher
from brloss_d2.projects.co_detr.modeling.query_head import Proposals, QueryPredictions
from brloss_d2.utils.devices import upload


@dataclass(frozen=True)
class QueryTargets:
    """What the queries of a pass have to predict, in all layers or in each of them.

    Attributes:
        labels: (1 or D, N * Q) 0..K-1 for foreground, K for background, -1 for ignored queries.
        foreground: (1 or D, P) int64 positions of the foreground in `labels`, ascending.
        gt_boxes: (1 or D, P, 4) objects of the foreground, XYXY in pixels.
    """

    labels: Tensor
    foreground: Tensor
    gt_boxes: Tensor

    @classmethod
    def of_all_layers(cls, labels: Tensor, gt_boxes: Tensor, foreground: Tensor) -> "QueryTargets":
        """Return the targets of queries whose objects are known.

        Args:
            labels: (N, Q) 0..K-1 for foreground, K for background, -1 for ignored queries.
            gt_boxes: (N, Q, 4) XYXY in pixels, used for foreground queries only.
            foreground: (P,) int64 positions of the foreground in the N * Q labels, ascending.
        """
        gt_boxes = gt_boxes.flatten(0, 1)[foreground]
        return cls(labels.flatten()[None], foreground[None], gt_boxes[None])

    @classmethod
    def of_matching(
        cls, matched: Tensor, objects: Sequence[Instances], num_classes: int
    ) -> "QueryTargets":
        """Look up classes and boxes of matched objects.

        Args:
            matched: (D, N, Q) int64 index of the object in its image, -1 for background, on the
                CPU; in all layers the same number is matched.
            objects: objects per image, with `gt_boxes` and `gt_classes`.
            num_classes: number of classes K.
        """
        counts = torch.tensor([len(x) for x in objects])
        numbers = (matched + (counts.cumsum(0) - counts)[:, None]).flatten(1)
        layers, rows = (matched.flatten(1) >= 0).nonzero(as_tuple=True)
        found = torch.stack([rows, numbers[layers, rows]]).view(2, len(matched), -1)
        classes = torch.cat([x.gt_classes for x in objects])
        foreground, index = upload(found, classes.device)
        labels = classes.new_full(numbers.shape, num_classes)
        labels.scatter_(1, foreground, classes[index])
        return cls(labels, foreground, Boxes.cat([x.gt_boxes for x in objects]).tensor[index])


class QueryLosses(nn.Module):
    """One-to-one matching of queries with objects, and the losses of every layer.

    Predicted boxes are cxcywh relative to the image. Criteria compare boxes in pixels; box losses
    on deltas get the relative boxes.

    Args:
        matcher: one-to-one matching of queries with objects.
        decoder: criterion of the decoder layers.
        encoder: criterion of the proposals.
        custom: criterion of the customized queries.
        denoising: criterion of the denoising queries; None for a detector without them.
        classless_proposals: whether all objects are of class 0 for the proposals.
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
        denoising: Criterion | None = None,
        classless_proposals: bool = True,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        for criterion in (decoder, encoder, custom, denoising):
            if criterion is not None and criterion.num_logits(1) != 1:
                raise InputError(
                    f"{type(criterion).__name__} needs a background class, which queries do not "
                    "have: choose a criterion of sigmoids or a ranking loss."
                )
        self.matcher, self.weight = matcher, weight
        self.decoder, self.encoder, self.custom = decoder, encoder, custom
        self.denoising, self.classless_proposals = denoising, classless_proposals

    def decoder_losses(
        self, predictions: QueryPredictions, gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Compute the losses of the decoder, whose layers are matched separately.

        Args:
            predictions: predictions of the decoder for its own queries.
            gt_instances: objects per image.

        Returns:
            Losses named `loss_<term>_layer<d>`.
        """
        logits, boxes = predictions.logits, predictions.boxes
        matched = self.matcher(logits, boxes, gt_instances)
        targets = QueryTargets.of_matching(matched, gt_instances, logits.shape[-1])
        named = dict(site="decoder", suffix="layer{}", logged="decoder")
        return self._layer_losses(logits, boxes, targets, gt_instances, **named)

    def proposal_losses(
        self, proposals: Proposals, gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Compute the losses of the encoder.

        Args:
            proposals: predictions of the cells.
            gt_instances: objects per image.

        Returns:
            Losses named `loss_<term>_proposals`.
        """
        objects = (
            [_classless(x) for x in gt_instances] if self.classless_proposals else gt_instances
        )
        logits, boxes = proposals.logits[None], proposals.boxes[None]
        matched = self.matcher(logits, boxes, objects)
        targets = QueryTargets.of_matching(matched, objects, logits.shape[-1])
        named = dict(site="encoder", suffix="proposals", logged="proposals")
        return self._layer_losses(logits, boxes, targets, objects, **named)

    def custom_losses(
        self,
        predictions: QueryPredictions,
        queries: CustomQueries,
        gt_instances: list[Instances],
        head: str,
    ) -> dict[str, Tensor]:
        """Compute the losses of customized queries, whose objects are known.

        Args:
            predictions: predictions of the decoder for these queries.
            queries: customized queries with their targets.
            gt_instances: objects per image.
            head: name of the auxiliary head.

        Returns:
            Losses named `loss_<term>_<head>_layer<d>`.
        """
        targets = QueryTargets.of_all_layers(queries.labels, queries.gt_boxes, queries.foreground)
        logits, boxes = predictions.logits, predictions.boxes
        named = dict(site="custom", suffix=f"{head}_layer{{}}", logged=f"{head}_queries")
        return self._layer_losses(logits, boxes, targets, gt_instances, **named)

    def denoising_losses(
        self,
        predictions: QueryPredictions,
        queries: NoisyQueries,
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """Compute the losses of denoising queries, whose objects are known.

        Args:
            predictions: predictions of the decoder for these queries.
            queries: denoising queries with their targets.
            gt_instances: objects per image.

        Returns:
            Losses named `loss_<term>_denoising_layer<d>`.
        """
        targets = QueryTargets.of_all_layers(queries.labels, queries.gt_boxes, queries.foreground)
        logits, boxes = predictions.logits, predictions.boxes
        named = dict(site="denoising", suffix="denoising_layer{}", logged="denoising")
        return self._layer_losses(logits, boxes, targets, gt_instances, **named)

    def _layer_losses(
        self,
        logits: Tensor,
        boxes: Tensor,
        targets: QueryTargets,
        objects: list[Instances],
        *,
        site: str,
        suffix: str,
        logged: str,
    ) -> dict[str, Tensor]:
        """Compute the losses of all layers of a pass together; proposals are one layer.

        Args:
            logits: (D, N, Q, K) class logits.
            boxes: (D, N, Q, 4) cxcywh relative to the image.
            targets: what they have to predict.
            objects: objects per image.
            site: name of the criterion.
            suffix: end of the names of the losses, with the place of the number of the layer.
            logged: name in the log of the metrics, those of the last layer.
        """
        matched = match_queries(logits, boxes, targets, [x.image_size for x in objects])
        output = getattr(self, site).layers(matched)
        log_metrics(logged, output)
        losses = {name: (self.weight * x).unbind() for name, x in output.losses.items()}
        return {
            f"{name}_{suffix.format(d)}": values[d]
            for d in range(len(logits))
            for name, values in losses.items()
        }


def _classless(objects: Instances) -> Instances:
    classes = torch.zeros_like(objects.gt_classes)
    return Instances(objects.image_size, gt_boxes=objects.gt_boxes, gt_classes=classes)


def match_queries(
    logits: Tensor, boxes: Tensor, targets: QueryTargets, image_sizes: list[tuple[int, int]]
) -> MatchedPredictions:
    """Pair the queries of every layer with their ground truth for a criterion.

    Args:
        logits: (D, N, Q, K) class logits.
        boxes: (D, N, Q, 4) cxcywh relative to the image.
        targets: what they have to predict.
        image_sizes: (height, width) of each image in pixels.
    """
    num_layers, num_images, num_queries, num_classes = logits.shape
    at, rows = targets.foreground, num_images * num_queries
    pred = boxes.flatten(1, 2).gather(1, at[..., None].expand(num_layers, -1, 4)).float()
    scales = image_scales(image_sizes, pred)[at // num_queries]
    gt_boxes = targets.gt_boxes.float().expand_as(pred)
    first_row = torch.arange(num_layers, device=at.device) * rows
    return MatchedPredictions(
        logits=logits.flatten(0, 2),
        labels=targets.labels.expand(num_layers, -1).flatten(),
        pred_boxes=pixel_boxes(pred, scales).flatten(0, 1),
        gt_boxes=gt_boxes.flatten(0, 1),
        num_classes=num_classes,
        foreground=(at + first_row[:, None]).flatten(),
        rows_per_image=[num_queries] * (num_layers * num_images),
        pred_deltas=pred.flatten(0, 1),
        gt_deltas=centers_and_sizes(gt_boxes / scales).flatten(0, 1),
        num_layers=num_layers,
    )
