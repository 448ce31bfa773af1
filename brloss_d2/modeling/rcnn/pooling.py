"""Pooling of regions whose pyramid levels the host learns in one copy."""

import torch
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes
from torch import Tensor, nn

from brloss_d2.utils.devices import upload


class OneWaitPooler(nn.Module):
    """detectron2's `ROIPooler` with the same results, for which the host waits once.

    `ROIPooler` searches for the regions of each level, and for the number of regions of each image,
    which makes the host wait for a GPU once per level and once more.

    Args:
        pooler: pooler of one or more levels.
    """

    def __init__(self, pooler: ROIPooler):
        super().__init__()
        self.pooler = pooler

    def forward(self, maps: list[Tensor], boxes: list[Boxes]) -> Tensor:
        """Pool regions.

        Args:
            maps: (N, C, H, W) feature map of each level.
            boxes: regions of each image in pixels.

        Returns:
            (R, C, S, S) features of the regions of all images.
        """
        pooler = self.pooler
        if len(maps) == 1 or not boxes or torch.jit.is_tracing():
            return pooler(maps, boxes)
        every = Boxes.cat(boxes)
        counts = torch.tensor([len(x) for x in boxes])
        images = torch.arange(len(boxes), dtype=every.tensor.dtype).repeat_interleave(counts)
        rows = torch.cat([upload(images, every.device)[:, None], every.tensor], 1)
        levels = assign_boxes_to_levels(
            [every],
            *(pooler.min_level, pooler.max_level),
            *(pooler.canonical_box_size, pooler.canonical_level),
        )
        levels, order = levels.sort(stable=True)
        bounds = torch.searchsorted(levels, torch.arange(len(maps) + 1, device=every.device))
        # As there, a region that is not finite has no level, and features of 0.
        _, *parts, _ = order.tensor_split(bounds.tolist())
        pooled = maps[0].new_zeros(len(rows), maps[0].shape[1], *pooler.output_size)
        for features, pool, own in zip(maps, pooler.level_poolers, parts, strict=True):
            pooled.index_put_((own,), pool(features, rows[own]))
        return pooled
