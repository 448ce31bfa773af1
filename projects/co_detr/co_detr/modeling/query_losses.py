"""Losses of sets of queries: decoder layers, proposals and customized queries.

Shape letters: N images, Q queries, K classes, D decoder layers.
"""

from collections.abc import Sequence

import torch
from detectron2.structures import Instances
from torch import Tensor, nn
from torchvision.ops import box_convert

from brloss_d2.criteria import Criterion, CriterionOutput, MatchedPredictions
from brloss_d2.errors import InputError
from brloss_d2.modeling.matching import log_metrics
from brloss_d2.projects.co_detr.modeling.boxes import assigned_targets, image_scales
from brloss_d2.projects.co_detr.modeling.custom_queries import CustomQueries
from brloss_d2.projects.co_detr.modeling.denoising import NoisyQueries
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
        layers = zip(predictions.logits, predictions.boxes, strict=True)
        targets = [self._match(logits, boxes, gt_instances) for logits, boxes in layers]
        losses, last = self._layer_losses(self.decoder, predictions, targets, gt_instances, "")
        log_metrics("decoder", last)
        return losses

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
        targets = self._match(proposals.logits, proposals.boxes, objects)
        sizes = [x.image_size for x in objects]
        output = self.encoder(match_queries(proposals.logits, proposals.boxes, *targets, sizes))
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
        targets = [(queries.labels, queries.gt_boxes)] * len(predictions.logits)
        losses, last = self._layer_losses(
            self.custom, predictions, targets, gt_instances, f"{head}_"
        )
        log_metrics(f"{head}_queries", last)
        return losses

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

        Raises:
            InputError: there is no criterion for these queries.
        """
        if self.denoising is None:
            raise InputError(
                "model.query_head makes denoising queries, but model.query_losses.denoising is no "
                "criterion: set it, or model.query_head.denoising=null."
            )
        targets = [(queries.labels, queries.gt_boxes)] * len(predictions.logits)
        losses, last = self._layer_losses(
            self.denoising, predictions, targets, gt_instances, "denoising_"
        )
        log_metrics("denoising", last)
        return losses

    def _layer_losses(
        self,
        criterion: Criterion,
        predictions: QueryPredictions,
        targets: Sequence[tuple[Tensor, Tensor]],
        gt_instances: list[Instances],
        prefix: str,
    ) -> tuple[dict[str, Tensor], CriterionOutput]:
        """Compute the losses per layer; metrics are logged from the output of the last one."""
        losses, sizes = {}, [x.image_size for x in gt_instances]
        layers = zip(predictions.logits, predictions.boxes, targets, strict=True)
        for d, (logits, boxes, (labels, gt_boxes)) in enumerate(layers):
            output = criterion(match_queries(logits, boxes, labels, gt_boxes, sizes))
            for name, value in output.losses.items():
                losses[f"{name}_{prefix}layer{d}"] = self.weight * value
        return losses, output

    @torch.no_grad()
    def _match(
        self, logits: Tensor, boxes: Tensor, gt_instances: list[Instances]
    ) -> tuple[Tensor, Tensor]:
        """Match every image: (N, Q) labels, K for background, and (N, Q, 4) boxes in pixels."""
        targets = []
        for i, objects in enumerate(gt_instances):
            truth = (objects.gt_boxes.tensor, objects.gt_classes, objects.image_size)
            assigned = self.matcher(logits[i], boxes[i], *truth)
            targets.append(assigned_targets(assigned, objects, num_classes=logits.shape[-1]))
        labels, gt_boxes = zip(*targets, strict=True)
        return torch.stack(labels), torch.stack(gt_boxes)


def _classless(objects: Instances) -> Instances:
    classes = torch.zeros_like(objects.gt_classes)
    return Instances(objects.image_size, gt_boxes=objects.gt_boxes, gt_classes=classes)


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
    labels = labels.flatten()
    foreground = ((labels >= 0) & (labels < num_classes)).nonzero().squeeze(1)
    pred = boxes.flatten(0, 1)[foreground].float()
    target = gt_boxes.flatten(0, 1)[foreground].float()
    scales = image_scales(image_sizes, pred)[foreground // num_queries]
    return MatchedPredictions(
        logits=logits.flatten(0, 1),
        labels=labels,
        pred_boxes=box_convert(pred, "cxcywh", "xyxy") * scales,
        gt_boxes=target,
        num_classes=num_classes,
        foreground=foreground,
        rows_per_image=[num_queries] * num_images,
        pred_deltas=pred,
        gt_deltas=box_convert(target / scales, "xyxy", "cxcywh"),
    )
