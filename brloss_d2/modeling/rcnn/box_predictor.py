"""Classification and box regression of regions, trained with any criterion."""

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor, nn

from brloss_d2.criteria import Criterion, CriterionOutput
from brloss_d2.modeling.matching import log_metrics, match_predictions
from brloss_d2.modeling.yaml import build_criterion

Predictions = tuple[Tensor, Tensor]


class CriterionBoxPredictor(FastRCNNOutputLayers):
    """detectron2's `FastRCNNOutputLayers` with outputs and losses as a criterion asks for.

    Args:
        input_shape: of the features of one region.
        criterion: losses, number of class outputs and their meaning.
        box2box_transform: how boxes are encoded.
        num_classes: foreground classes.
        test_score_thresh: detections need a higher score. Ranking losses push scores up: the
            published threshold is 0.40, where cross-entropy takes 0.05.
        test_nms_thresh: IoU above which the lower of two boxes of a class is dropped.
        test_topk_per_image: detections kept an image.
        cls_agnostic_bbox_reg: one box for all classes.
        loss_weight: of all terms.
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
        outputs = criterion.num_logits(num_classes)
        if outputs != self.cls_score.out_features:
            self.cls_score = nn.Linear(self.cls_score.in_features, outputs)
            nn.init.normal_(self.cls_score.weight, std=0.01)
            nn.init.zeros_(self.cls_score.bias)

    @classmethod
    def from_config(cls, cfg, input_shape):
        parts = super().from_config(cfg, input_shape)
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

    def losses(self, predictions: Predictions, proposals: list[Instances]) -> dict[str, Tensor]:
        """The criterion's losses over the regions of all images at once.

        Leaves in the proposals what a mask head weighs its loss with, row by row: `box_weights`,
        0 for background, and `cls_total` of the criterion, before `loss_weight`.

        Args:
            predictions: logits (R, `criterion.num_logits`) and deltas (R, 4 K) or (R, 4).
            proposals: per image, with `proposal_boxes`, `gt_classes` (K is background) and,
                where the image has objects, `gt_boxes`.
        """
        logits, deltas = predictions
        labels = torch.cat([p.gt_classes for p in proposals])
        boxes = torch.cat([p.proposal_boxes.tensor for p in proposals])
        # Where an image has no object there is no foreground row either: any box will do.
        gt_boxes = torch.cat([p.get(_gt_field(p)).tensor for p in proposals])
        rows = ((labels >= 0) & (labels < self.num_classes)).nonzero().squeeze(1)
        matched = match_predictions(
            logits,
            labels,
            self._deltas_of(deltas, rows, labels),
            boxes[rows],
            gt_boxes[rows],
            transform=self.box2box_transform,
            num_classes=self.num_classes,
            rows_per_image=[len(p) for p in proposals],
        )
        output = self.criterion(matched)
        log_metrics("roi_head", output)
        _hand_over(output, rows, matched.images, proposals)
        return {name: self.loss_weight * value for name, value in output.losses.items()}

    def _deltas_of(self, deltas: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        """(P, 4): the deltas of the foreground `rows`, for their own class."""
        if deltas.shape[1] == 4:
            return deltas[rows]
        return deltas.view(-1, self.num_classes, 4)[rows, labels[rows]]

    def predict_probs(self, predictions: Predictions, proposals: list[Instances]) -> list[Tensor]:
        """Per image (R_i, K + 1) probabilities; the base expects a background column, here 0."""
        probs = self.criterion.predict_probs(predictions[0].float())
        padded = nn.functional.pad(probs, (0, 1))
        return list(padded.split([len(p) for p in proposals]))


def _gt_field(proposals: Instances) -> str:
    return "gt_boxes" if proposals.has("gt_boxes") else "proposal_boxes"


def _hand_over(
    output: CriterionOutput, rows: Tensor, images: Tensor, proposals: list[Instances]
) -> None:
    """Spread weights and totals over all regions, whose fields stay together when some are chosen.

    Args:
        output: of the criterion.
        rows: (P,) the foreground among the R regions.
        images: (R,) the image of each.
        proposals: per image, altered.
    """
    weights = output.box_weights.new_zeros(len(images)).index_copy(0, rows, output.box_weights)
    totals = output.cls_total.expand(len(proposals))[images]
    counts = [len(p) for p in proposals]
    for p, weight, total in zip(
        proposals, weights.split(counts), totals.split(counts), strict=True
    ):
        p.set("box_weights", weight)
        p.set("cls_total", total)
