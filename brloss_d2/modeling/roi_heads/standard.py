"""RoI heads that can train on all proposals instead of a sample."""

import torch
from detectron2.config import configurable
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, StandardROIHeads
from torch import Tensor

from brloss_d2.modeling.roi_heads.box_predictor import CriterionBoxPredictor


@ROI_HEADS_REGISTRY.register()
class CriterionROIHeads(StandardROIHeads):
    """detectron2's `StandardROIHeads` without sampling, for ranking losses, or with it.

    Args:
        batch_size_per_image: proposals sampled an image; None trains on all.
        positive_fraction: of the sample, at most.
        roi_heads: see detectron2's `StandardROIHeads`; the box predictor brings its criterion.
    """

    @configurable
    def __init__(
        self,
        *,
        batch_size_per_image: int | None = None,
        positive_fraction: float = 0.25,
        **roi_heads,
    ):
        super().__init__(
            batch_size_per_image=batch_size_per_image,
            positive_fraction=positive_fraction,
            **roi_heads,
        )

    @classmethod
    def from_config(cls, cfg, input_shape):
        parts = super().from_config(cfg, input_shape)
        if cfg.MODEL.BRLOSS.CRITERION != "ce":
            parts["batch_size_per_image"] = None
        return parts

    @classmethod
    def _init_box_head(cls, cfg, input_shape):
        parts = super()._init_box_head(cfg, input_shape)
        parts["box_predictor"] = CriterionBoxPredictor(cfg, parts["box_head"].output_shape)
        return parts

    def _sample_proposals(
        self, matched_idxs: Tensor, matched_labels: Tensor, gt_classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.batch_size_per_image is not None:
            return super()._sample_proposals(matched_idxs, matched_labels, gt_classes)
        background = torch.full_like(matched_idxs, self.num_classes)
        classes = gt_classes[matched_idxs] if len(gt_classes) else background
        classes = torch.where(matched_labels == 1, classes, background)
        classes = torch.where(matched_labels == -1, -1, classes)
        # Foreground first, as the mask branch and the published heads have it.
        order = (matched_labels != 1).to(torch.int8).argsort(stable=True)
        return order, classes[order]
