"""Classification and box regression of regions, trained with any criterion."""

from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor, nn

from brloss_d2.criteria import Criterion
from brloss_d2.criteria.matched import weighted
from brloss_d2.losses.base import check_types
from brloss_d2.modeling.box_coding import BoxTransform
from brloss_d2.modeling.matching import log_metrics, match_predictions
from brloss_d2.modeling.yaml import build_criterion


class BoxPredictions(NamedTuple):
    """Outputs for R regions.

    Attributes:
        logits: (R, `criterion.num_logits`) class logits.
        deltas: (R, 4 K) encoded boxes of each class, or (R, 4) one for all classes.
    """

    logits: Tensor
    deltas: Tensor


class CriterionBoxPredictor(FastRCNNOutputLayers):
    """detectron2's `FastRCNNOutputLayers` with outputs and losses as a criterion needs them.

    Args:
        input_shape: shape of the features of one region.
        criterion: losses, number of class outputs and their meaning.
        box2box_transform: encoding of the boxes.
        num_classes: number of foreground classes, K.
        test_score_thresh: score that detections have to exceed. Ranking losses push scores up: the
            published threshold is 0.40, that of cross-entropy 0.05.
        test_nms_thresh: IoU above which the lower of two boxes of a class is dropped.
        test_topk_per_image: largest number of detections per image.
        cls_agnostic_bbox_reg: whether one box is predicted for all classes.
        loss_weight: factor of all terms.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        criterion: Criterion,
        box2box_transform: Box2BoxTransform,
        num_classes: int,
        test_score_thresh: float = 0.05,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
        cls_agnostic_bbox_reg: bool = False,
        loss_weight: float = 1.0,
    ):
        check_types(criterion=(criterion, Criterion))
        super().__init__(
            input_shape,
            box2box_transform=box2box_transform,
            num_classes=num_classes,
            test_score_thresh=test_score_thresh,
            test_nms_thresh=test_nms_thresh,
            test_topk_per_image=test_topk_per_image,
            cls_agnostic_bbox_reg=cls_agnostic_bbox_reg,
        )
        self.criterion, self.loss_weight = criterion, loss_weight
        self.cls_score: nn.Linear
        outputs = criterion.num_logits(num_classes)
        if outputs != self.cls_score.out_features:
            self.cls_score = nn.Linear(self.cls_score.in_features, outputs)
            nn.init.normal_(self.cls_score.weight, std=0.01)
            nn.init.zeros_(self.cls_score.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        parts = super().from_config(cfg, input_shape)
        parts["box2box_transform"] = BoxTransform(cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS)
        known = (
            "input_shape",
            "box2box_transform",
            "num_classes",
            "test_score_thresh",
            "test_nms_thresh",
            "test_topk_per_image",
            "cls_agnostic_bbox_reg",
        )
        return {"criterion": build_criterion(cfg, "roi"), **{key: parts[key] for key in known}}

    def forward(self, x: Tensor) -> BoxPredictions:
        """Predict from features (R, C) of regions."""
        return BoxPredictions(*super().forward(x))

    def losses(self, predictions: BoxPredictions, proposals: list[Instances]) -> dict[str, Tensor]:
        """Compute the criterion's losses over the regions of all images at once.

        Leaves in each row of the proposals what a mask head weights its loss with: `box_weights`, 0
        for background, and `cls_total` of the criterion, before `loss_weight`.

        Args:
            predictions: logits and deltas of the regions.
            proposals: regions per image, with `proposal_boxes`, `gt_classes` (K is background) and,
                if the image has objects, `gt_boxes`.
        """
        logits, deltas = predictions
        labels = torch.cat([p.gt_classes for p in proposals])
        foreground = ((labels >= 0) & (labels < self.num_classes)).nonzero().squeeze(1)
        if deltas.shape[1] == 4:
            deltas = deltas[foreground]
        else:  # those of the own class
            deltas = deltas.view(-1, self.num_classes, 4)[foreground, labels[foreground]]
        # An image without objects has no foreground either: any box will do.
        gt_boxes = [p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes for p in proposals]
        counts = [len(p) for p in proposals]
        matched = match_predictions(
            logits,
            labels,
            foreground,
            deltas,
            torch.cat([p.proposal_boxes.tensor for p in proposals])[foreground],
            torch.cat([x.tensor for x in gt_boxes])[foreground],
            transform=self.box2box_transform,
            encode_targets=self.criterion.needs_deltas,
            num_classes=self.num_classes,
            rows_per_image=counts,
        )
        output = self.criterion(matched)
        log_metrics("roi_head", output)
        weights = output.box_weights.new_zeros(len(labels))
        weights = weights.index_copy(0, foreground, output.box_weights).split(counts)
        totals = output.cls_total.expand(len(proposals))
        for p, weight, total in zip(proposals, weights, totals, strict=True):
            p.set("box_weights", weight)
            p.set("cls_total", total.expand(len(p)))
        return {name: weighted(value, self.loss_weight) for name, value in output.losses.items()}

    def predict_probs(
        self, predictions: BoxPredictions, proposals: list[Instances]
    ) -> list[Tensor]:
        """Return (R_i, K + 1) probabilities per image; the background column, last, is 0."""
        probs = self.criterion.predict_probs(predictions[0].float())
        padded = nn.functional.pad(probs, (0, 1))
        return list(padded.split([len(p) for p in proposals]))
