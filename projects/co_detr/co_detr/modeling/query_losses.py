"""Losses of sets of queries: decoder layers, proposals and customized queries.

Shape letters: N images, Q queries, K classes, D decoder layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torchvision.ops import box_convert

from brloss_d2.criteria import Criterion, MatchedPredictions
from brloss_d2.errors import InputError
from brloss_d2.modeling.matching import log_metrics
from brloss_d2.projects.co_detr.modeling.boxes import (
    image_scales,
    pixel_boxes,
    upload,
)
from brloss_d2.projects.co_detr.modeling.custom_queries import CustomQueries
from brloss_d2.projects.co_detr.modeling.denoising import NoisyQueries
from brloss_d2.projects.co_detr.modeling.hungarian import HungarianMatcher
from brloss_d2.projects.co_detr.modeling.query_head import Proposals, QueryPredictions


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
        matched = self.matcher(predictions.logits, predictions.boxes, gt_instances)
        targets = QueryTargets.of_matching(matched, gt_instances, predictions.logits.shape[-1])
        return self._layer_losses("decoder", predictions, targets, gt_instances, logged="decoder")

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
        sizes = [x.image_size for x in objects]
        output = self.encoder(*match_queries(logits, boxes, targets, sizes))
        log_metrics("proposals", output)
        return {f"{name}_proposals": self.weight * x for name, x in output.losses.items()}

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
        labels = queries.labels.flatten()
        positive = (labels >= 0) & (labels < predictions.logits.shape[-1])
        foreground = positive.nonzero().squeeze(1)
        targets = QueryTargets.of_all_layers(queries.labels, queries.gt_boxes, foreground)
        return self._layer_losses(
            "custom", predictions, targets, gt_instances, f"{head}_", logged=f"{head}_queries"
        )

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
        return self._layer_losses(
            "denoising", predictions, targets, gt_instances, "denoising_", logged="denoising"
        )

    def _layer_losses(
        self,
        site: str,
        predictions: QueryPredictions,
        targets: QueryTargets,
        gt_instances: list[Instances],
        prefix: str = "",
        *,
        logged: str,
    ) -> dict[str, Tensor]:
        """Compute the losses of every layer; metrics are logged from those of the last one."""
        sizes = [x.image_size for x in gt_instances]
        layers = match_queries(predictions.logits, predictions.boxes, targets, sizes)
        outputs = [getattr(self, site)(matched) for matched in layers]
        log_metrics(logged, outputs[-1])
        return {
            f"{name}_{prefix}layer{d}": self.weight * value
            for d, output in enumerate(outputs)
            for name, value in output.losses.items()
        }


def _classless(objects: Instances) -> Instances:
    classes = torch.zeros_like(objects.gt_classes)
    return Instances(objects.image_size, gt_boxes=objects.gt_boxes, gt_classes=classes)


def match_queries(
    logits: Tensor, boxes: Tensor, targets: QueryTargets, image_sizes: list[tuple[int, int]]
) -> list[MatchedPredictions]:
    """Pair the queries of every layer with their ground truth for a criterion.

    Args:
        logits: (D, N, Q, K) class logits.
        boxes: (D, N, Q, 4) cxcywh relative to the image.
        targets: what they have to predict.
        image_sizes: (height, width) of each image in pixels.
    """
    num_layers, num_images, num_queries, num_classes = logits.shape
    at, gt_boxes = targets.foreground, targets.gt_boxes.float()
    pred = boxes.flatten(1, 2).gather(1, at[..., None].expand(num_layers, -1, 4)).float()
    scales = image_scales(image_sizes, pred)[at // num_queries]
    tensors = dict(
        logits=logits.flatten(1, 2),
        labels=targets.labels,
        pred_boxes=pixel_boxes(pred, scales),
        gt_boxes=gt_boxes,
        foreground=at,
        pred_deltas=pred,
        gt_deltas=box_convert(gt_boxes / scales, "xyxy", "cxcywh"),
    )
    layers = {name: x.expand(num_layers, *x.shape[1:]).unbind() for name, x in tensors.items()}
    return [
        MatchedPredictions(
            **{name: x[d] for name, x in layers.items()},
            num_classes=num_classes,
            rows_per_image=[num_queries] * num_images,
        )
        for d in range(num_layers)
    ]
