"""The mask branch of Mask R-CNN, trained with any mask criterion."""

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
from brloss_d2.modeling.matching import log_metrics, match_masks
from brloss_d2.modeling.yaml import build_criterion


@ROI_MASK_HEAD_REGISTRY.register()
class CriterionMaskHead(MaskRCNNConvUpsampleHead):
    """detectron2's `MaskRCNNConvUpsampleHead` with its loss from a criterion.

    Args:
        input_shape: of the features of one region.
        criterion: the loss, and how many masks it is computed of.
        mask_head: see detectron2's `MaskRCNNConvUpsampleHead`.
    """

    @configurable
    def __init__(self, input_shape: ShapeSpec, *, criterion: MaskCriterion, **mask_head):
        super().__init__(input_shape, **mask_head)
        # As published; detectron2 starts the predictor near 0.
        c2_msra_fill(self.predictor)
        self.criterion = criterion

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Return the arguments that `MODEL.ROI_MASK_HEAD` and `MODEL.BRLOSS` describe."""
        return {"criterion": build_criterion(cfg, "mask"), **super().from_config(cfg, input_shape)}

    def layers(self, x: Tensor) -> Tensor:
        """(P, C, H, W) features of regions to (P, K, 2 H, 2 W) mask logits."""
        for layer in self:
            if layer is not self.criterion:
                x = layer(x)
        return x

    def sample(self, foreground: list[Instances]) -> list[Instances]:
        """The foreground regions of each image to train on, as the criterion chooses them."""
        counts = [len(x) for x in foreground]
        kept = self.criterion.sample(counts, foreground[0].gt_classes.device).split(counts)
        return [x[rows] for x, rows in zip(foreground, kept, strict=True)]

    def forward(self, x: Tensor, instances: list[Instances]) -> dict[str, Tensor] | list[Instances]:
        """Losses in training; the instances with their `pred_masks` otherwise.

        Args:
            x: (P, C, H, W) features of the regions of all images.
            instances: per image. In training foreground regions with `proposal_boxes`,
                `gt_classes`, `gt_masks`, and the `box_weights` and `cls_total` that
                `CriterionBoxPredictor.losses` left there; else detections.
        """
        logits = self.layers(x)
        if not self.training:
            mask_rcnn_inference(logits, instances)
            return instances
        output = self.criterion(match_masks(logits, instances))
        log_metrics("mask_head", output)
        return {name: self.loss_weight * value for name, value in output.losses.items()}


class IndexedMasks:
    """`masks[index]` that copies no mask before it is cropped.

    Without sampling an image has a thousand regions and detectron2 would copy a mask for each, to
    drop most of them unused. This stands in for the `gt_masks` of the regions.

    Args:
        masks: of the G objects of an image.
        index: (R,) the object of each region, int64.
    """

    def __init__(self, masks: BitMasks | PolygonMasks, index: Tensor):
        self.masks, self.index = masks, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, item: Tensor | slice) -> "IndexedMasks":
        return IndexedMasks(self.masks, self.index[item])

    def to(self, *args, **kwargs) -> "IndexedMasks":
        return IndexedMasks(self.masks.to(*args, **kwargs), self.index.to(*args, **kwargs))

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """The mask of each region, cropped to its box.

        Args:
            boxes: (R, 4) XYXY in pixels.
            mask_size: side S of the result.

        Returns:
            (R, S, S) bool, as the method of detectron2's masks.
        """
        if not isinstance(self.masks, BitMasks):
            return self.masks[self.index].crop_and_resize(boxes, mask_size)
        bitmaps = self.masks.tensor.to(boxes.device, boxes.dtype)[:, None]
        regions = torch.cat([self.index[:, None].to(boxes), boxes], 1)
        align = ROIAlign((mask_size, mask_size), 1.0, 0, aligned=True)
        return align(bitmaps, regions).squeeze(1) >= 0.5
