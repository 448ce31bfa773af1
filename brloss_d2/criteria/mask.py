"""Criterion of the mask branch, balanced against the classification of the box head."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from brloss_d2.criteria.matched import CriterionOutput
from brloss_d2.criteria.pooling import PooledCriterion, weighted_mean
from brloss_d2.losses import Balancer, MaskLoss
from brloss_d2.losses.base import check_numbers, check_types
from brloss_d2.ops import PoolGroup
from brloss_d2.utils.devices import upload


@dataclass(frozen=True)
class MatchedMasks:
    """P predicted masks of a mask head with their targets, image by image.

    Attributes:
        logits: (P, S, S) logits of each mask for its own class; None if there are `losses`.
        targets: (P, S, S) bool, or float in [0, 1]; None if there are `losses`.
        weights: (P,) detached weight of each mask in the mean, `CriterionOutput.box_weights`.
        cls_total: (P,) detached sum of the classification terms of the ranking pool of the mask's
            region, `CriterionOutput.cls_total`.
        masks_per_image: number of masks of each image, in order.
        losses: (P,) `MaskCriterion.mask_loss` of each mask, from a head that has computed it, such
            as one that ranks by it; None lets the criterion compute it.

    Raises:
        ValueError: If the lengths differ, or there are neither logits and targets nor losses.

    Example:
        >>> logits, ones = torch.zeros(3, 28, 28), torch.ones(3)
        >>> masks = MatchedMasks(logits, logits.sigmoid(), ones, ones, masks_per_image=[2, 1])
        >>> [len(pool.logits) for pool in masks.split(images_per_pool=1)]
        [2, 1]
    """

    logits: Tensor | None
    targets: Tensor | None
    weights: Tensor
    cls_total: Tensor
    masks_per_image: Sequence[int]
    losses: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the number of masks."""
        if self.losses is None and (self.logits is None or self.targets is None):
            raise ValueError("masks need logits and targets, or losses")
        lengths = {len(x) for x in self._tensors().values()}
        if lengths != {sum(self.masks_per_image)}:
            raise ValueError(
                f"{', '.join(self._tensors())} must have one entry for each of the "
                f"{sum(self.masks_per_image)} masks, got {sorted(lengths)}"
            )

    def _tensors(self) -> dict[str, Tensor]:
        names = ("logits", "targets", "weights", "cls_total", "losses")
        return {name: x for name in names if (x := getattr(self, name)) is not None}

    @property
    def num_images(self) -> int:
        """Number of images, N."""
        return len(self.masks_per_image)

    def split(self, images_per_pool: int) -> list["MatchedMasks"]:
        """Split into pools of consecutive images, without copies; the last pool may be smaller."""
        size, counts = images_per_pool, self.masks_per_image
        pools = [counts[i : i + size] for i in range(0, len(counts), size)]
        tensors = self._tensors()
        parts = zip(*(x.split([sum(p) for p in pools]) for x in tensors.values()), strict=True)
        return [
            replace(self, masks_per_image=pool, **dict(zip(tensors, part, strict=True)))
            for pool, part in zip(pools, parts, strict=True)
        ]


class MaskCriterion(PooledCriterion):
    """Weighted mean of a loss per mask, balanced against the box head's classification.

    Oksuz et al., ICCV 2021: Dice loss, masks weighted by the scores of their regions as boxes are,
    and the result scaled to the ranking losses of the box head. With cross-entropy, a
    `ConstantBalancer` and a box criterion of equal weights it is the criterion of Mask R-CNN.

    Args:
        mask_loss: loss per mask.
        balancer: module that weights the mean against the classification terms of the box head.
        max_masks: largest number of masks of a pool that are trained on, chosen at random (with
            `pool="global"`, of each process); None is no limit.
        max_masks_per_image: the same limit for each image, instead of `max_masks`.
        pools: `images_per_pool` and `pool`, see `PooledCriterion`; best those of the box head.

    Raises:
        ValueError: If a limit is below 1, there are two, or an argument is of another kind.

    Example:
        >>> from brloss_d2.losses import DiceLoss, SelfBalancer
        >>> MaskCriterion(DiceLoss(), SelfBalancer(), max_masks=200).max_masks
        200
    """

    def __init__(
        self,
        mask_loss: MaskLoss,
        balancer: Balancer,
        *,
        max_masks: int | None = None,
        max_masks_per_image: int | None = None,
        **pools: Any,
    ):
        super().__init__(**pools)
        check_types(mask_loss=(mask_loss, MaskLoss), balancer=(balancer, Balancer))
        limits = {"max_masks": max_masks, "max_masks_per_image": max_masks_per_image}
        given = {name: limit for name, limit in limits.items() if limit is not None}
        check_types(**{name: (limit, int) for name, limit in given.items()})
        check_numbers(">= 1", **given)
        if len(given) > 1:
            raise ValueError(f"max_masks and max_masks_per_image exclude each other, got {given}")
        self.mask_loss, self.balancer = mask_loss, balancer
        self.max_masks, self.max_masks_per_image = max_masks, max_masks_per_image

    def sample(self, masks_per_image: Sequence[int], device: torch.device) -> Tensor:
        """Choose the masks to train on, before any of them is computed.

        Args:
            masks_per_image: number of candidates of each image, in order.
            device: device of the result.

        Returns:
            (P,) bool, which candidates are kept: regions, targets and weights alike.
        """
        kept = torch.ones(sum(masks_per_image), dtype=torch.bool, device=device)
        if not self.leaves_out(masks_per_image):
            return kept
        limit, sizes = self._limit(masks_per_image)
        pools = torch.arange(len(sizes), device=device)
        pools = pools.repeat_interleave(
            upload(torch.tensor(sizes), kept.device), output_size=len(kept)
        )
        order = torch.randperm(len(kept), device=device)
        order = order[pools[order].argsort(stable=True)]  # by pool, random within
        place = torch.arange(len(kept), device=device) - torch.searchsorted(pools, pools)
        kept[order] = place < limit
        return kept

    def leaves_out(self, masks_per_image: Sequence[int]) -> bool:
        """Return whether `sample` chooses: whether any pool, or image, has more than the limit."""
        limit, sizes = self._limit(masks_per_image)
        return max(sizes, default=0) > limit

    def _limit(self, masks_per_image: Sequence[int]) -> tuple[float, list[int]]:
        """Return the limit, and the numbers of masks that it is for."""
        counts, size = list(masks_per_image), self.images_per_pool or len(masks_per_image)
        if self.max_masks_per_image is not None:
            return self.max_masks_per_image, counts
        pools = [sum(counts[i : i + size]) for i in range(0, len(counts), size)] if counts else []
        return math.inf if self.max_masks is None else self.max_masks, pools

    def pool_losses(self, matched: MatchedMasks, group: PoolGroup) -> CriterionOutput:
        """Compute the mask loss of one pool."""
        losses = matched.losses
        if losses is None:
            losses = self.mask_loss(matched.logits, matched.targets)
        mean = weighted_mean(losses, matched.weights, group)
        # All masks of a pool carry its total; without masks none is needed.
        cls_total = matched.cls_total[:1].sum()
        count = len(matched.weights)
        balanced = self.balancer(cls_total, mean, group.total(count, mean.device))
        return CriterionOutput(
            {"loss_mask": balanced},
            box_weights=matched.weights,
            cls_total=cls_total,
            metrics=lambda: {"mask_unbalanced": mean.detach(), "num_masks": count},
        )
