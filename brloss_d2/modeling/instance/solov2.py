"""SOLOv2: masks from kernels that a grid of cells predicts."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Instances
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from brloss_d2.criteria import Criterion, MaskCriterion, MatchedMasks, MatchedPredictions
from brloss_d2.errors import InputError
from brloss_d2.losses import DiceLoss, MaskLoss, dice_loss
from brloss_d2.losses.base import check_types
from brloss_d2.modeling.instance.grid_assigner import (
    MASK_STRIDE,
    GridAssigner,
    GridTargets,
    quarter_masks,
)
from brloss_d2.modeling.instance.grid_head import GridHead, GridOutputs, MaskFeatureHead
from brloss_d2.modeling.instance.grid_postprocessing import GridPostprocessor
from brloss_d2.modeling.instance.masks import bitmaps
from brloss_d2.modeling.matching import log_metrics
from brloss_d2.modeling.yaml import recipe_parts
from brloss_d2.utils.devices import upload

# Masks of an image whose intermediate results are kept for the backward pass. Those of more masks
# are computed again.
_MAX_MASKS_KEPT = 128
# Of the Dice coefficients that are no mask losses: 0.001 in each of the two sums.
_DICE_EPS = 0.002


class SOLOv2Outputs(NamedTuple):
    """Outputs of the network.

    Attributes:
        grid: logits and kernels of the cells of each level.
        mask_features: (N, E, H, W) mask features at a quarter of the size of the padded images.
    """

    grid: GridOutputs
    mask_features: Tensor


@META_ARCH_REGISTRY.register()
class SOLOv2(DenseDetector):
    """Instance segmentation without boxes (Wang et al., NeurIPS 2020).

    The classes of all cells are ranked by the Dice coefficients of their masks (Oksuz et al., ICCV
    2021), or trained with any other criterion without boxes. The boxes of detections are those
    around their masks.

    Args:
        backbone: feature pyramid, the finest level at a quarter of the size of the image.
        head: module from all levels to `GridOutputs`.
        mask_head: module from all levels to mask features.
        assigner: rule by which objects are assigned to cells.
        criterion: losses of the classes, and the meaning of the logits.
        mask_criterion: losses of the masks.
        postprocessor: step from outputs to detections.
        num_classes: number of foreground classes.
        pixel_mean: mean of the pixels, in the order of `input_format`.
        pixel_std: standard deviation of the pixels, in the order of `input_format`.
        input_format: order of the colors.

    Raises:
        InputError: If the criterion needs outputs that the head does not have.
        ValueError: If a part is of another kind.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: GridHead,
        mask_head: MaskFeatureHead,
        assigner: GridAssigner,
        criterion: Criterion,
        mask_criterion: MaskCriterion,
        postprocessor: GridPostprocessor,
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str = "RGB",
    ):
        check_types(
            assigner=(assigner, GridAssigner),
            criterion=(criterion, Criterion),
            mask_criterion=(mask_criterion, MaskCriterion),
            postprocessor=(postprocessor, GridPostprocessor),
        )
        super().__init__(backbone, head, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.mask_head, self.assigner, self.postprocessor = mask_head, assigner, postprocessor
        self.criterion, self.mask_criterion = criterion, mask_criterion
        self.num_classes, self.input_format = num_classes, input_format
        if criterion.num_logits(num_classes) != num_classes:
            raise InputError(
                f"{type(criterion).__name__} needs a background class, which SOLOv2 does not have: "
                "choose a criterion of sigmoids or a ranking loss."
            )
        if head.grid_sizes != tuple(assigner.grid_sizes):
            raise InputError(
                f"model.head has grids of {list(head.grid_sizes)} cells, model.assigner of "
                f"{list(assigner.grid_sizes)}: give both the same."
            )
        if len(postprocessor.min_areas) != len(head.grid_sizes):
            raise InputError(
                f"model.postprocessor.min_areas has {len(postprocessor.min_areas)} numbers for "
                f"{len(head.grid_sizes)} levels."
            )
        if getattr(criterion, "quality", None) is not None:
            raise InputError(
                "model.criterion has a quality branch to train, which SOLOv2 does not have."
            )
        if mask_criterion.max_masks or mask_criterion.max_masks_per_image:
            raise InputError(
                "SOLOv2 trains on all masks, since its classes are ranked by them: set "
                "model.mask_criterion.max_masks and max_masks_per_image to None."
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return recipe_parts(cfg)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Return losses in training, else the detections of each image in its original size.

        Args:
            batched_inputs: `image` (3, H, W) of each image; in training `instances` with
                `gt_boxes`, `gt_classes` and, as `BitMasks`, `gt_masks`; else possibly `height` and
                `width`, the original size.
        """
        images = self.preprocess_image(batched_inputs)
        outputs = self.outputs(images.tensor)
        if self.training:
            objects = [x["instances"].to(self.device) for x in batched_inputs]
            return self.losses(outputs, objects)
        output_sizes = [
            (x.get("height", size[0]), x.get("width", size[1]))
            for x, size in zip(batched_inputs, images.image_sizes, strict=True)
        ]
        found = self.postprocessor.detect(
            *outputs.grid,
            outputs.mask_features,
            predict_probs=self.criterion.predict_probs,
            image_sizes=images.image_sizes,
            output_sizes=output_sizes,
        )
        return [{"instances": x} for x in found]

    def outputs(self, images: Tensor) -> SOLOv2Outputs:
        """Run the network on (N, 3, H, W) normalized and padded images."""
        features = self.backbone(images)
        levels = [features[name] for name in self.head_in_features]
        return SOLOv2Outputs(self.head(levels), self.mask_head(levels))

    def losses(self, outputs: SOLOv2Outputs, gt_instances: list[Instances]) -> dict[str, Tensor]:
        """Compute the losses of classes and masks.

        Args:
            outputs: outputs for N images.
            gt_instances: objects of each image with `gt_boxes`, `gt_classes` and `gt_masks`.
        """
        height, width = outputs.mask_features.shape[-2:]
        canvas = (MASK_STRIDE * height, MASK_STRIDE * width)
        masks = [bitmaps(x) for x in gt_instances]
        targets = [
            self.assigner(x.gt_boxes.tensor, y, canvas)
            for x, y in zip(gt_instances, masks, strict=True)
        ]
        mask_losses, dice = self._compare(outputs, masks, targets)
        whole = GridTargets.cat(
            targets,
            num_cells=sum(x[0, 0].numel() for x in outputs.grid.logits),
            num_objects=[len(x) for x in gt_instances],
        )
        output = self.criterion(self._match(outputs.grid.logits, gt_instances, whole, dice))
        log_metrics("head", output)
        counts = [len(t.mask_cells) for t in targets]
        cls_total = output.cls_total.expand(len(counts))
        matched_masks = MatchedMasks(
            logits=None,
            targets=None,
            weights=output.box_weights[whole.mask_rows],
            cls_total=torch.cat([x.expand(n) for x, n in zip(cls_total, counts, strict=True)]),
            masks_per_image=counts,
            losses=mask_losses,
        )
        mask_output = self.mask_criterion(matched_masks)
        log_metrics("mask_head", mask_output)
        return {**output.losses, **mask_output.losses}

    def _compare(
        self, outputs: SOLOv2Outputs, masks: list[Tensor], targets: list[GridTargets]
    ) -> tuple[Tensor, Tensor]:
        """Return (E,) losses and (E,) detached Dice coefficients of the masks of all images.

        Args:
            outputs: outputs for N images.
            masks: (G, H, W) bool masks of the objects of each image.
            targets: targets of each image.
        """
        kernels = torch.cat([x.flatten(2) for x in outputs.grid.kernels], 2)
        found = []
        for own, features, gt_masks, target in zip(
            kernels, outputs.mask_features, masks, targets, strict=True
        ):
            quarters = quarter_masks(gt_masks, tuple(features.shape[1:]))
            compare = partial(compare_masks, features, quarters, self.mask_criterion.mask_loss)
            pairs = own[:, target.mask_cells].T, target.mask_objects
            parts = list(zip(*(x.split(_MAX_MASKS_KEPT) for x in pairs), strict=True))
            if len(parts) == 1:
                found.append(compare(*parts[0]))
            else:
                found += [checkpoint(compare, *part, use_reentrant=False) for part in parts]
        losses, dice = (torch.cat(x) for x in zip(*found, strict=True))
        return losses, dice

    def _match(
        self,
        logits: list[Tensor],
        gt_instances: list[Instances],
        targets: GridTargets,
        dice: Tensor,
    ) -> MatchedPredictions:
        """Return the logits of all cells, image by image, with labels and quality.

        Args:
            logits: (N, K, G, G) class logits of each level.
            gt_instances: objects of each image.
            targets: targets of all images.
            dice: (E,) Dice coefficients; a cell with several masks has their mean as its quality.
        """
        rows = torch.cat([x.flatten(2) for x in logits], 2).transpose(1, 2)
        num_images, num_cells, _ = rows.shape
        gt_classes = torch.cat([x.gt_classes for x in gt_instances])
        labels = targets.cells.new_full((num_images * num_cells,), self.num_classes)
        labels[targets.cells] = gt_classes[targets.owners]
        quality = dice.new_zeros(len(targets.cells))
        quality.scatter_reduce_(0, targets.mask_rows, dice, "mean", include_self=False)
        ends = upload(torch.tensor([x[0, 0].numel() for x in logits]).cumsum(0), rows.device)
        return MatchedPredictions(
            logits=rows.flatten(0, 1),
            labels=labels,
            pred_boxes=None,
            gt_boxes=torch.cat([x.gt_boxes.tensor for x in gt_instances])[targets.owners],
            num_classes=self.num_classes,
            foreground=targets.cells,
            rows_per_image=[num_cells] * num_images,
            levels=torch.searchsorted(ends, targets.cells % num_cells, right=True),
            quality=quality,
        )


def compare_masks(
    mask_features: Tensor,
    gt_masks: Tensor,
    mask_loss: MaskLoss,
    kernels: Tensor,
    objects: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compare predicted masks of an image with those of its objects.

    Args:
        mask_features: (C, H, W) mask features.
        gt_masks: (G, H, W) bool masks of the objects.
        mask_loss: loss per mask.
        kernels: (E, C) kernel of each predicted mask.
        objects: (E,) object of each predicted mask.

    Returns:
        (E,) losses, and (E,) Dice coefficients, detached. A Dice loss gives both.
    """
    logits = (kernels @ mask_features.flatten(1)).view(-1, *mask_features.shape[1:])
    targets = gt_masks[objects]
    losses = mask_loss(logits, targets)
    if isinstance(mask_loss, DiceLoss):
        return losses, 1 - losses.detach()
    return losses, 1 - dice_loss(logits.detach(), targets, eps=_DICE_EPS)
