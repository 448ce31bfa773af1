"""Criterion of the mask branch, weighed against the classification of the box head."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from brloss_d2.criteria.matched import CriterionOutput
from brloss_d2.criteria.pooling import check_pools, processes_of
from brloss_d2.criteria.ranking import weighted_mean
from brloss_d2.losses import Balancer, MaskLoss


@dataclass(frozen=True)
class MatchedMasks:
    """P predicted masks of one mask head with their targets.

    Attributes:
        logits: (P, S, S) of each mask's own class.
        targets: (P, S, S) bool, or float in [0, 1].
        weights: (P,) detached weight of each mask in the mean, `CriterionOutput.box_weights`.
        cls_total: (P,) detached sum of the classification terms of the ranking pool that the
            mask's region belongs to, `CriterionOutput.cls_total`.
        images: (P,) which image of the batch a mask belongs to, ascending.
        num_images: images in the batch.
    """

    logits: Tensor
    targets: Tensor
    weights: Tensor
    cls_total: Tensor
    images: Tensor
    num_images: int

    def split(self, num_images: int) -> list["MatchedMasks"]:
        """Groups of `num_images` consecutive images; the last may have fewer."""
        groups = self.images.div(num_images, rounding_mode="floor")
        starts = range(0, self.num_images, num_images)
        return [
            self._part(groups == i, min(num_images, self.num_images - start))
            for i, start in enumerate(starts)
        ]

    def _part(self, rows: Tensor, num_images: int) -> "MatchedMasks":
        fields = ("logits", "targets", "weights", "cls_total", "images")
        return replace(
            self, num_images=num_images, **{name: getattr(self, name)[rows] for name in fields}
        )


class MaskCriterion(nn.Module):
    """Weighted mean of a loss per mask, balanced against the box head's classification.

    Oksuz et al., ICCV 2021: Dice loss, the masks weighted by the scores of their regions as the
    boxes are, and the result scaled to the ranking losses of the box head. With cross-entropy, a
    `ConstantBalancer` and a box criterion whose weights are equal it is that of Mask R-CNN.

    Args:
        mask_loss: per mask.
        balancer: weighs the mean against the classification terms of the box head.
        max_masks: trained on at most, in a pool; more are cut down at random. None is no limit.
        images_per_pool: as in `PooledCriterion`, best the same as in the box head.
        pool: likewise; with "global" the limit holds for each process.
    """

    def __init__(
        self,
        mask_loss: MaskLoss,
        balancer: Balancer,
        *,
        max_masks: int | None = None,
        images_per_pool: int | None = None,
        pool: str = "local",
    ):
        super().__init__()
        check_pools(images_per_pool, pool)
        if max_masks is not None and max_masks < 1:
            raise ValueError(f"max_masks must be >= 1 or None, got {max_masks}")
        self.mask_loss, self.balancer, self.max_masks = mask_loss, balancer, max_masks
        self.images_per_pool, self.pool = images_per_pool, pool

    def sample(self, images: Tensor, num_images: int) -> Tensor:
        """Choose the masks to train on, before any of them is computed.

        Args:
            images: (P,) which image each candidate belongs to, ascending.
            num_images: images in the batch.

        Returns:
            Ascending indices, one set for regions, targets and weights alike.
        """
        if self.max_masks is None:
            return torch.arange(len(images), device=images.device)
        pools = images.div(self.images_per_pool or num_images, rounding_mode="floor")
        order = torch.randperm(len(images), device=images.device)
        order = order[pools[order].argsort(stable=True)]  # by pool, random within
        first = torch.searchsorted(pools, pools)
        within = torch.arange(len(images), device=images.device) - first
        return order[within < self.max_masks].sort().values

    def forward(self, matched: MatchedMasks) -> CriterionOutput:
        size = self.images_per_pool
        if size is None or matched.num_images <= size:
            parts, processes = [matched], processes_of(self.pool)
        else:
            parts, processes = matched.split(size), processes_of("local")
        means = [
            weighted_mean(self.mask_loss(p.logits, p.targets), p.weights, processes) for p in parts
        ]
        balanced = [
            # All masks of a pool carry its total; none needs none.
            self.balancer(
                part.cls_total[:1].sum(), mean, processes.total(len(part.weights), mean.device)
            )
            for part, mean in zip(parts, means, strict=True)
        ]
        count = len(parts)
        return CriterionOutput(
            {"loss_mask": torch.stack(balanced).sum() / count},
            box_weights=matched.weights,
            cls_total=matched.cls_total,
            metrics={
                "mask_unbalanced": torch.stack(means).detach().sum() / count,
                "num_masks": len(matched.weights),
            },
        )

    def extra_repr(self) -> str:
        return (
            f"max_masks={self.max_masks}, images_per_pool={self.images_per_pool}, "
            f"pool={self.pool!r}"
        )
