"""Cascade R-CNN whose stages train with any criterion."""

from contextlib import nullcontext
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, CascadeROIHeads
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from brloss_d2.errors import InputError
from brloss_d2.modeling.box_coding import BoxTransform
from brloss_d2.modeling.matching import kept_rows
from brloss_d2.modeling.rcnn.box_predictor import BoxPredictions, CriterionBoxPredictor
from brloss_d2.modeling.rcnn.roi_heads import CriterionROIHeads


@ROI_HEADS_REGISTRY.register()
class CriterionCascadeROIHeads(CriterionROIHeads, CascadeROIHeads):
    """detectron2's `CascadeROIHeads`, changed as in the published ranking-loss detectors.

    Each stage labels its regions again and adds the ground-truth boxes again, after those of the
    stage before were removed. Gradients are not scaled between stages: the `loss_weight` of the box
    predictors weights the losses. Detections are scored by the mean *logits* of the stages.

    Args:
        cascade: arguments of `CascadeROIHeads` and `CriterionROIHeads`. The box predictors, each
            with a criterion, regress one box for all classes; sampling happens in every stage.

    Raises:
        InputError: If a box predictor regresses a box for each class.
    """

    @configurable
    def __init__(self, **cascade: Any):
        super().__init__(**cascade)
        for stage, predictor in enumerate(self.box_predictor):
            if predictor.bbox_pred.out_features != 4:
                raise InputError(
                    f"A cascade refines one box for all classes, but the box predictor of stage "
                    f"{stage} has {predictor.bbox_pred.out_features} outputs: set its "
                    "cls_agnostic_bbox_reg=True."
                )

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        parts = CascadeROIHeads._init_box_head(cfg, input_shape)
        parts["box_predictors"] = [
            CriterionBoxPredictor(
                cfg,
                head.output_shape,
                box2box_transform=BoxTransform(weights),
                loss_weight=loss,
            )
            for head, weights, loss in zip(
                parts["box_heads"],
                cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS,
                cfg.MODEL.BRLOSS.CASCADE_LOSS_WEIGHTS,
                strict=True,
            )
        ]
        return parts

    def _forward_box(
        self,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> dict[str, Tensor] | list[Instances]:
        """Return losses named `..._stage0`, `..._stage1`, ... in training, else detections."""
        maps = [features[name] for name in self.box_in_features]
        losses: dict[str, Tensor] = {}
        logits = []
        for stage, predictor in enumerate(self.box_predictor):
            # Unlike in detectron2, gradients are not scaled.
            regions = self.box_pooler(maps, [x.proposal_boxes for x in proposals])
            predictions = predictor(self.box_head[stage](regions))
            logits.append(predictions.logits)
            if self.training:
                storage = get_event_storage() if has_event_storage() else None
                with storage.name_scope(f"stage{stage}") if storage else nullcontext():
                    terms = predictor.losses(predictions, proposals)
                losses.update({f"{name}_stage{stage}": value for name, value in terms.items()})
            if stage + 1 < self.num_cascade_stages:
                proposals = self._refine(predictions, proposals, targets, stage)
        if self.training:
            return losses
        mean = torch.stack(logits).mean(0)
        return predictor.inference(BoxPredictions(mean, predictions.deltas), proposals)[0]

    @torch.no_grad()
    def _refine(
        self,
        predictions: BoxPredictions,
        proposals: list[Instances],
        targets: list[Instances] | None,
        stage: int,
    ) -> list[Instances]:
        """Make the regions of the next stage from the boxes that a stage predicts."""
        boxes = self.box_predictor[stage].predict_boxes(predictions, proposals)
        if self.training:  # in inference rows correspond across stages, so that none is removed
            every = torch.cat(boxes)
            if not every.isfinite().all():
                raise FloatingPointError(f"boxes predicted by cascade stage {stage} are not finite")
            own = ~torch.cat([x.is_gt for x in proposals])
            rows, counts = kept_rows(own, [len(x) for x in proposals])
            boxes = every[rows].split(counts)
        sizes = [x.image_size for x in proposals]
        refined = [
            Instances(size, proposal_boxes=Boxes(clip_boxes_to_image(x, size)))
            for x, size in zip(boxes, sizes, strict=True)
        ]
        if not self.training or targets is None:
            return refined
        return self.label_and_sample_proposals(refined, targets, self.proposal_matchers[stage + 1])
