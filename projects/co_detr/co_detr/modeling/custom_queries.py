"""Customized positive queries: what the auxiliary heads found positive, as queries of the decoder.

Collaborative hybrid assignments (Zong et al., ICCV 2023, section 3.3). A head hands over, for each
image, a list of n boxes with labels; as many rows of each list become queries. Shapes: N images,
T queries, K classes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.projects.co_detr.modeling.boxes import relative_boxes

IGNORED = -1


@dataclass(frozen=True)
class CustomQueries:
    """The queries made of the list of one head, and what they have to predict.

    Attributes:
        rows: (N, T) int64, where in the list of its image each comes from; -1 where there was
            nothing left to fill up with.
        boxes: (N, T, 4) cxcywh relative to the image, without gradient and not clipped: anchors may
            be larger than the image. Zeros where `rows` is -1.
        labels: (N, T) int64 in 0..K-1, K for background, -1 where `rows` is -1.
        gt_boxes: (N, T, 4) XYXY in pixels; without meaning for background.
    """

    rows: Tensor
    boxes: Tensor
    labels: Tensor
    gt_boxes: Tensor


def choose_rows(
    labels: list[Tensor],
    num_classes: int,
    max_count: int = 300,
    min_count: int = 9,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw the same number of rows from the list of each image, positives first.

    The number is that of the positives of the image that has most, but within `min_count` and
    `max_count`. An image with more has some of its positives drawn at random, one with fewer all of
    them and some of its background.

    Args:
        labels: (n,) of each image, in 0..K-1, K for background; others are never drawn.
        num_classes: K.
        max_count: largest number.
        min_count: smallest number.
        generator: draws; of any device.

    Returns:
        (N, T) int64 without repetitions; -1 where a list has neither positives nor background left.
    """
    positives = [(x >= 0) & (x < num_classes) for x in labels]
    most = torch.stack([positive.sum() for positive in positives]).max()
    count = int(most.clamp(max=max_count).clamp(min=min_count))
    drawn = [
        _draw(positive, positive | (image == num_classes), count, generator)
        for image, positive in zip(labels, positives, strict=True)
    ]
    return torch.stack(drawn)


@torch.no_grad()
def custom_queries(
    rows: Tensor,
    boxes: list[Tensor],
    labels: list[Tensor],
    gt_boxes: list[Tensor],
    image_sizes: list[tuple[int, int]],
) -> CustomQueries:
    """Gather what belongs to the chosen rows.

    Args:
        rows: (N, T) int64, from `choose_rows`.
        boxes: (n, 4) of each image, XYXY in pixels.
        labels: (n,) of each image.
        gt_boxes: (n, 4) of each image, XYXY in pixels, the objects that the boxes belong to.
        image_sizes: heights and widths in pixels.
    """
    relative = [relative_boxes(x, size) for x, size in zip(boxes, image_sizes, strict=True)]
    return CustomQueries(
        rows=rows,
        boxes=_gather(relative, rows, 0),
        labels=_gather(labels, rows, IGNORED),
        gt_boxes=_gather(gt_boxes, rows, 0),
    )


def _gather(values: list[Tensor], rows: Tensor, fill: int) -> Tensor:
    """Rows of the values of each image: (N, T, ...); the row -1 is `fill`."""
    filled = [torch.cat([x, x.new_full((1, *x.shape[1:]), fill)]) for x in values]
    return torch.stack([x[index] for x, index in zip(filled, rows, strict=True)])


def _draw(
    positive: Tensor, allowed: Tensor, count: int, generator: torch.Generator | None
) -> Tensor:
    """(T,) rows of those allowed, positives first, filled up with -1."""
    device = positive.device if generator is None else generator.device
    # In double precision no two are equal: positives in [1, 2), background in [0, 1).
    keys = torch.rand(len(positive), generator=generator, device=device, dtype=torch.float64)
    keys = torch.where(allowed, keys.to(positive.device) + positive, -1.0)
    best, rows = keys.topk(min(count, len(keys)))
    return F.pad(torch.where(best >= 0, rows, -1), (0, count - len(rows)), value=-1)
