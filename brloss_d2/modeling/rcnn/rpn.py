"""A region proposal network that trains with any criterion."""

import math
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling.proposal_generator.build import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor, nn

from brloss_d2.criteria import Criterion
from brloss_d2.criteria.matched import weighted
from brloss_d2.losses.base import check_types
from brloss_d2.modeling.box_coding import BoxTransform
from brloss_d2.modeling.matching import (
    MaxIoUMatcher,
    inside_padded_image,
    log_metrics,
    match_predictions,
)
from brloss_d2.modeling.rcnn.proposals import Candidates
from brloss_d2.modeling.yaml import build_criterion, is_ranking


@PROPOSAL_GENERATOR_REGISTRY.register()
class CriterionRPN(RPN):
    """detectron2's `RPN` with its losses from a criterion.

    Anchors in the padding of the batch (and outside the image if `anchor_boundary_thresh` >= 0) are
    left out before matching and ignored.

    Args:
        criterion: losses of one class, objectness.
        loss_weight: factor of all terms.
        batch_size_per_image: number of anchors sampled per image; None trains on all, as ranking
            losses do.
        positive_fraction: largest share of positives in the sample.
        prior_prob: objectness at the start of training, in (0, 1); None leaves the bias at 0.
        padding_divisor: number of pixels to whose multiples an image itself is padded.
        rpn: arguments of detectron2's `RPN`.
    """

    @configurable
    def __init__(
        self,
        *,
        criterion: Criterion,
        loss_weight: float = 1.0,
        batch_size_per_image: int | None = None,
        positive_fraction: float = 0.5,
        prior_prob: float | None = None,
        padding_divisor: int = 32,
        **rpn: Any,
    ):
        check_types(criterion=(criterion, Criterion))
        super().__init__(
            batch_size_per_image=batch_size_per_image, positive_fraction=positive_fraction, **rpn
        )
        self.criterion = criterion
        self.loss_weight = loss_weight
        self.padding_divisor = padding_divisor
        if prior_prob is not None:
            bias = -math.log((1 - prior_prob) / prior_prob)
            nn.init.constant_(self.rpn_head.objectness_logits.bias, bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        parts = super().from_config(cfg, input_shape)
        for unused in ("box_reg_loss_type", "smooth_l1_beta"):
            del parts[unused]
        options = cfg.MODEL.BRLOSS
        sampled = not is_ranking(options.CRITERION)
        parts.update(
            criterion=build_criterion(cfg, "rpn"),
            box2box_transform=BoxTransform(cfg.MODEL.RPN.BBOX_REG_WEIGHTS),
            anchor_matcher=MaxIoUMatcher(
                cfg.MODEL.RPN.IOU_THRESHOLDS,
                cfg.MODEL.RPN.IOU_LABELS,
                min_low_quality_iou=options.RPN_MIN_LOW_QUALITY_IOU,
            ),
            loss_weight=cfg.MODEL.RPN.LOSS_WEIGHT if sampled else options.RPN_LOSS_WEIGHT,
        )
        if not sampled:
            parts["batch_size_per_image"] = None
        return parts

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        gt_instances: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Return proposals and losses; see detectron2's `RPN`.

        Raises:
            FloatingPointError: If the outputs are not finite, in training.
        """
        try:
            return super().forward(images, features, gt_instances)
        except FloatingPointError as error:
            raise FloatingPointError(f"RPN outputs, and all loss_rpn_* terms: {error}") from error

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Return the best proposals of each image; see detectron2's method."""
        if torch.jit.is_tracing():
            return super().predict_proposals(
                anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes
            )
        return Candidates.decode(
            anchors,
            pred_objectness_logits,
            pred_anchor_deltas,
            transform=self.box2box_transform,
            topk=self.pre_nms_topk[self.training],
        ).suppress(
            image_sizes,
            iou=self.nms_thresh,
            topk=self.post_nms_topk[self.training],
            min_size=self.min_box_size,
            finite=self.training,
        )

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Label all anchors of every image; shapes as in detectron2's method."""
        every = Boxes.cat(anchors)
        all_labels, all_boxes = [], []
        for objects in gt_instances:
            size, gt_boxes = objects.image_size, objects.gt_boxes
            kept = inside_padded_image(every.get_centers(), size, self.padding_divisor)
            if self.anchor_boundary_thresh >= 0:
                kept &= every.inside_box(size, self.anchor_boundary_thresh)
            # Anchors that are left out overlap nothing, and no label of theirs counts.
            iou = retry_if_cuda_oom(pairwise_iou)(gt_boxes, every)
            iou = iou.masked_fill_(~kept.to(iou.device), 0)
            found = retry_if_cuda_oom(self.anchor_matcher)(iou)
            matches, labels = (x.to(every.device) for x in found)
            labels = labels.masked_fill(~kept, -1)
            boxes = gt_boxes.tensor[matches] if len(gt_boxes) else torch.zeros_like(every.tensor)
            if self.batch_size_per_image is not None:
                labels = self._subsample_labels(labels)
            all_labels.append(labels)
            all_boxes.append(boxes)
        return all_labels, all_boxes

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Compute the criterion's losses over all levels and images at once.

        Arguments as in detectron2's method.
        """
        labels = torch.cat(gt_labels)
        foreground = (labels == 1).nonzero().squeeze(1)
        num_anchors = len(gt_labels[0])
        matched = match_predictions(
            torch.cat(pred_objectness_logits, 1).reshape(-1, 1),
            # A criterion counts classes from 0, the background last: 0 is object, 1 is not.
            torch.where(labels < 0, -1, 1 - labels.long()),
            foreground,
            torch.cat(pred_anchor_deltas, 1).flatten(0, 1)[foreground],
            Boxes.cat(anchors).tensor[foreground % num_anchors],
            torch.cat(gt_boxes)[foreground],
            transform=self.box2box_transform,
            encode_targets=self.criterion.needs_deltas,
            num_classes=1,
            rows_per_image=[num_anchors] * len(gt_labels),
        )
        output = self.criterion(matched)
        log_metrics("rpn", output)
        return {
            name.replace("loss_", "loss_rpn_"): weighted(value, self.loss_weight)
            for name, value in output.losses.items()
        }
