"""RoI heads that can train on all proposals instead of a sample."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor

from brloss_d2.errors import InputError
from brloss_d2.modeling.matching import MaxIoUMatcher
from brloss_d2.modeling.rcnn.box_predictor import CriterionBoxPredictor
from brloss_d2.modeling.rcnn.mask_head import CriterionMaskHead, IndexedMasks
from brloss_d2.modeling.rcnn.pooling import OneWaitPooler
from brloss_d2.modeling.yaml import check_config, is_ranking


@ROI_HEADS_REGISTRY.register()
class CriterionROIHeads(StandardROIHeads):
    """detectron2's `StandardROIHeads` without sampling, for ranking losses, or with it.

    Ground-truth boxes added to the proposals come first, keep their own labels and are not matched,
    so that low-quality matches go to proposals. Masks are computed for the foreground only.

    Args:
        batch_size_per_image: number of proposals sampled per image; None trains on all.
        positive_fraction: largest share of positives in the sample.
        roi_heads: arguments of detectron2's `StandardROIHeads`; box predictor and mask head have
            criteria of their own.
    """

    @configurable
    def __init__(
        self,
        *,
        batch_size_per_image: int | None = None,
        positive_fraction: float = 0.25,
        **roi_heads: Any,
    ):
        super().__init__(
            batch_size_per_image=batch_size_per_image,
            positive_fraction=positive_fraction,
            **roi_heads,
        )
        for name, part in list(self.named_children()):
            if isinstance(part, ROIPooler):
                setattr(self, name, OneWaitPooler(part))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        check_config(cfg)
        if not cfg.MODEL.ROI_BOX_HEAD.NAME:
            raise InputError(
                "MODEL.ROI_BOX_HEAD.NAME is empty: the RoI heads of this package take a feature "
                "pyramid and a box head, as detectron2's *_FPN_* configurations have them."
            )
        parts = super().from_config(cfg, input_shape)
        options = cfg.MODEL.BRLOSS
        if "proposal_matcher" in parts:
            parts["proposal_matcher"] = MaxIoUMatcher(
                cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS,
                cfg.MODEL.ROI_HEADS.IOU_LABELS,
                min_low_quality_iou=options.MASK_MIN_LOW_QUALITY_IOU if cfg.MODEL.MASK_ON else None,
            )
        if is_ranking(options.CRITERION):
            parts["batch_size_per_image"] = None
        return parts

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        parts = super()._init_box_head(cfg, input_shape)
        parts["box_predictor"] = CriterionBoxPredictor(cfg, parts["box_head"].output_shape)
        return parts

    @torch.no_grad()
    def label_and_sample_proposals(
        self,
        proposals: list[Instances],
        targets: list[Instances],
        matcher: Matcher | None = None,
    ) -> list[Instances]:
        """Choose the regions to train on, with their targets.

        Args:
            proposals: proposals per image, with `proposal_boxes`.
            targets: objects per image, with `gt_boxes`, `gt_classes` and other fields that the
                heads need.
            matcher: rule that turns IoU into labels; None is `proposal_matcher`.

        Returns:
            Regions per image with `proposal_boxes`, `gt_classes` (K is background), `is_gt`
            (whether the region is an added ground-truth box) and, if the image has objects, the
            other `gt_*` fields of the matched objects. Added boxes come first, then foreground,
            then background.
        """
        matcher = matcher or self.proposal_matcher
        regions = []
        for proposal, target in zip(proposals, targets, strict=True):
            boxes = proposal.proposal_boxes
            matches, labels = matcher(pairwise_iou(target.gt_boxes, boxes))
            added = len(target) if self.proposal_append_gt else 0
            if added:
                boxes = Boxes.cat([target.gt_boxes, boxes])
                matches = torch.cat([torch.arange(added, device=matches.device), matches])
                labels = torch.cat([labels.new_ones(added), labels])
            rows, classes = self._sample_proposals(matches, labels, target.gt_classes)
            chosen = Instances(
                target.image_size,
                proposal_boxes=boxes[rows],
                gt_classes=classes,
                is_gt=rows < added,
            )
            for name, value in target.get_fields().items() if len(target) else ():
                if name.startswith("gt_") and not chosen.has(name):
                    own = matches[rows]
                    chosen.set(name, IndexedMasks(value, own) if name == "gt_masks" else value[own])
            regions.append(chosen)
        return regions

    def _sample_proposals(
        self, matched_idxs: Tensor, matched_labels: Tensor, gt_classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.batch_size_per_image is not None:
            return super()._sample_proposals(matched_idxs, matched_labels, gt_classes)
        background = torch.full_like(matched_idxs, self.num_classes)
        classes = gt_classes[matched_idxs] if len(gt_classes) else background
        classes = torch.where(matched_labels == 1, classes, background)
        classes = torch.where(matched_labels == -1, -1, classes)
        # Foreground first, as in the published heads; the mask branch relies on it.
        order = (matched_labels != 1).to(torch.int8).argsort(stable=True)
        return order, classes[order]

    def _forward_mask(
        self, features: dict[str, Tensor], instances: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        trains = self.training and self.mask_on
        if not (trains and isinstance(self.mask_head, CriterionMaskHead)):
            return super()._forward_mask(features, instances)
        # Foreground comes first. detectron2 searches for it, image by image.
        classes = [x.gt_classes for x in instances]
        counts = torch.stack([((c >= 0) & (c < self.num_classes)).sum() for c in classes])
        instances = [x[:count] for x, count in zip(instances, counts.tolist(), strict=True)]
        instances = self.mask_head.sample(instances)
        maps = [features[name] for name in self.mask_in_features]
        regions = self.mask_pooler(maps, [x.proposal_boxes for x in instances])
        return self.mask_head(regions, instances)
