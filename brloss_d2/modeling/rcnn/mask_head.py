"""The mask branch of Mask R-CNN, trained with any mask criterion."""

from itertools import accumulate
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ROIAlign, ShapeSpec
from detectron2.modeling.roi_heads.mask_head import (
    ROI_MASK_HEAD_REGISTRY,
    MaskRCNNConvUpsampleHead,
    mask_rcnn_inference,
)
from detectron2.structures import BitMasks, Instances, PolygonMasks
from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor

from brloss_d2.criteria import MaskCriterion
from brloss_d2.criteria.matched import weighted
from brloss_d2.losses.base import check_types
from brloss_d2.modeling.matching import kept_rows, log_metrics, match_masks
from brloss_d2.modeling.yaml import build_criterion


@ROI_MASK_HEAD_REGISTRY.register()
class CriterionMaskHead(MaskRCNNConvUpsampleHead):
    """detectron2's `MaskRCNNConvUpsampleHead` with its loss from a criterion.

    Args:
        input_shape: shape of the features of one region.
        criterion: mask loss, and choice of the masks that it is computed for.
        mask_head: arguments of detectron2's `MaskRCNNConvUpsampleHead`.
    """

    @configurable
    def __init__(self, input_shape: ShapeSpec, *, criterion: MaskCriterion, **mask_head: Any):
        check_types(criterion=(criterion, MaskCriterion))
        super().__init__(input_shape, **mask_head)
        # As published; detectron2 starts the predictor near 0.
        c2_msra_fill(self.predictor)
        self.criterion = criterion

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        return {"criterion": build_criterion(cfg, "mask"), **super().from_config(cfg, input_shape)}

    def layers(self, x: Tensor) -> Tensor:
        """Turn features (P, C, H, W) of regions into mask logits (P, K, 2 H, 2 W)."""
        for layer in self:
            if layer is not self.criterion:
                x = layer(x)
        return x

    def sample(self, foreground: list[Instances]) -> list[Instances]:
        """Choose the foreground regions of each image to train on, as the criterion says."""
        counts = [len(x) for x in foreground]
        if not self.criterion.leaves_out(counts):
            return foreground
        kept = self.criterion.sample(counts, foreground[0].gt_classes.device)
        rows, kept_counts = kept_rows(kept, counts)
        parts = zip(foreground, rows.split(kept_counts), accumulate([0, *counts]), strict=False)
        return [x[own - first] for x, own, first in parts]

    def forward(self, x: Tensor, instances: list[Instances]) -> dict[str, Tensor] | list[Instances]:
        """Return losses in training, else the instances with `pred_masks`.

        Args:
            x: (P, C, H, W) features of the regions of all images.
            instances: foreground regions per image in training, with `proposal_boxes`,
                `gt_classes`, `gt_masks`, and the `box_weights` and `cls_total` that
                `CriterionBoxPredictor.losses` left there; else detections per image.
        """
        logits = self.layers(x)
        if not self.training:
            mask_rcnn_inference(logits, instances)
            return instances
        output = self.criterion(match_masks(logits, instances))
        log_metrics("mask_head", output)
        return {name: weighted(value, self.loss_weight) for name, value in output.losses.items()}


class IndexedMasks:
    """`masks[index]` that copies no mask before it is cropped.

    Without sampling an image has a thousand regions, and detectron2 would copy a mask for each,
    most of them unused. Instances of this class are the `gt_masks` of regions.

    Args:
        masks: masks of the G objects of an image.
        index: (R,) int64 object of each region.
    """

    def __init__(self, masks: BitMasks | PolygonMasks, index: Tensor):
        self.masks, self.index = masks, index

    def __len__(self) -> int:
        """Number of regions, R."""
        return len(self.index)

    def __getitem__(self, item: Tensor | slice) -> "IndexedMasks":
        """Select regions."""
        return IndexedMasks(self.masks, self.index[item])

    def to(self, *args: Any, **kwargs: Any) -> "IndexedMasks":
        """Move masks and indices, as `Tensor.to` does."""
        return IndexedMasks(self.masks.to(*args, **kwargs), self.index.to(*args, **kwargs))

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Crop the mask of each region to its box.

        Args:
            boxes: (R, 4) boxes of the regions, XYXY in pixels.
            mask_size: side S of the result.

        Returns:
            (R, S, S) bool, as from detectron2's masks.
        """
        if not isinstance(self.masks, BitMasks):
            return self.masks[self.index].crop_and_resize(boxes, mask_size)
        bitmaps = self.masks.tensor.to(boxes.device, boxes.dtype)[:, None]
        regions = torch.cat([self.index[:, None].to(boxes), boxes], 1)
        align = ROIAlign((mask_size, mask_size), 1.0, 0, aligned=True)
        return align(bitmaps, regions).squeeze(1) >= 0.5
