"""Auxiliary semantic segmentation, which exists in training only."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d
from detectron2.structures import Instances
from torch import Tensor, nn

from brloss_d2.losses.base import check_numbers
from brloss_d2.modeling.instance.masks import bitmaps
from brloss_d2.modeling.instance.prototypes import mask_targets
from brloss_d2.utils.devices import upload


class SemanticHead(nn.Module):
    """1x1 convolution to a map per class, trained with binary cross-entropy (YOLACT).

    Bolya et al., ICCV 2019, section 4. The target of a class is the union of the masks of its
    objects. As published, images without objects are not trained on, but counted.

    Args:
        in_channels: number of channels of the features.
        num_classes: number of classes, K.
        loss_weight: factor of the loss, >= 0.
        published_shift: whether the targets of each class are those of the next one, a leftover of
            labels from 1 in the published code; for comparisons with it.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        loss_weight: float = 1.0,
        published_shift: bool = False,
    ):
        super().__init__()
        check_numbers(">= 0", loss_weight=loss_weight)
        self.num_classes, self.loss_weight = num_classes, loss_weight
        self.published_shift = published_shift
        self.predictor = Conv2d(in_channels, num_classes, 1)
        nn.init.xavier_uniform_(self.predictor.weight)
        nn.init.zeros_(self.predictor.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Turn features (N, `in_channels`, h, w) into logits (N, K, h, w)."""
        return self.predictor(x)

    def losses(
        self, x: Tensor, gt_instances: list[Instances], image_size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Compute `loss_semantic`, summed over classes and divided by the number of cells.

        Args:
            x: (N, `in_channels`, h, w) features.
            gt_instances: objects of each image, with `gt_classes` and `gt_masks`.
            image_size: height and width in pixels that the features cover.
        """
        logits = self(x).float()
        targets = torch.stack(
            [self.targets(objects, image_size, logits.shape[-2:]) for objects in gt_instances]
        )
        cells = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)
        counted = upload(torch.tensor([len(objects) > 0 for objects in gt_instances]), x.device)
        return {"loss_semantic": self.loss_weight * (cells * counted[:, None, None]).mean()}

    @torch.no_grad()
    def targets(
        self, objects: Instances, image_size: tuple[int, int], map_size: Sequence[int]
    ) -> Tensor:
        """Return the (K, h, w) targets of an image, 0 or 1."""
        masks = mask_targets(bitmaps(objects), image_size, map_size).float()
        classes = objects.gt_classes
        if self.published_shift:
            classes = (classes - 1) % self.num_classes
        members = F.one_hot(classes, self.num_classes).to(masks.dtype)
        return torch.einsum("gk,ghw->khw", members, masks).clamp(max=1)
