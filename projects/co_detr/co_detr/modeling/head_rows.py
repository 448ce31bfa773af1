"""What an auxiliary head hands over: the rows it trained on, and what each had to be."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes, Instances
from torch import Tensor

# Regions of an image that are handed over; the foreground comes first.
_MAX_REGIONS = 2000


@dataclass(frozen=True)
class HeadRows:
    """Boxes with their targets, per image.

    Attributes:
        boxes: (R_i, 4) anchors or regions, XYXY in pixels.
        labels: (R_i,) class, K is background.
        gt_boxes: (R_i, 4) the object of each foreground row, XYXY in pixels; of no meaning for
            background.
        features: of chosen rows, (N, T) -> (N, T, C), with gradient; any for rows that are -1.
    """

    boxes: list[Tensor]
    labels: list[Tensor]
    gt_boxes: list[Tensor]
    features: Callable[[Tensor], Tensor]


def region_rows(regions: list[Instances], maps: list[Tensor], pooler: ROIPooler) -> HeadRows:
    """The regions that an R-CNN was trained on. The feature of one is the mean of what is pooled.

    Every image hands over as many as the one with fewest regions.

    Args:
        regions: per image, with `proposal_boxes`, `gt_classes` and, unless it has no object,
            `gt_boxes`; foreground first.
        maps: (N, C, H, W) that `pooler` reads.
        pooler: of the R-CNN.
    """
    count = min(_MAX_REGIONS, *(len(x) for x in regions))
    regions = [x[:count] for x in regions]
    boxes = [x.proposal_boxes.tensor for x in regions]

    def features(rows: Tensor) -> Tensor:
        chosen = [Boxes(take_rows(b, r)) for b, r in zip(boxes, rows, strict=True)]
        return pooler(maps, chosen).mean((2, 3)).unflatten(0, rows.shape)

    return HeadRows(
        boxes=boxes,
        labels=[x.gt_classes for x in regions],
        gt_boxes=[
            x.gt_boxes.tensor if x.has("gt_boxes") else x.proposal_boxes.tensor for x in regions
        ],
        features=features,
    )


def cell_features(maps: list[Tensor]) -> Callable[[Tensor], Tensor]:
    """Features of anchors, one a cell, level after level: the maps (N, C, H, W) at their cells."""
    cells = torch.cat([x.flatten(2) for x in maps], 2).transpose(1, 2)

    def features(rows: Tensor) -> Tensor:
        return torch.stack([take_rows(c, r) for c, r in zip(cells, rows, strict=True)])

    return features


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """`values[rows]`, where rows that are -1 take zeros, attached to the graph."""
    padded = torch.cat([values, values.new_zeros(1, *values.shape[1:])])
    return padded[rows]
