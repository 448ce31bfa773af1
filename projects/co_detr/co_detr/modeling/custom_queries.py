"""Customized positive queries: foreground of the auxiliary heads as queries of the decoder.

Collaborative hybrid assignments (Zong et al., ICCV 2023, section 3.3). Per image, an auxiliary head
hands over n boxes with labels; the same number T of each image's rows become queries.

Shape letters: N images, T queries, K classes, C channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from brloss_d2.projects.co_detr.layers.position import inverse_sigmoid, sine_box
from brloss_d2.projects.co_detr.modeling.boxes import image_scales, relative_boxes
from brloss_d2.projects.co_detr.modeling.decoder import Queries
from brloss_d2.utils.devices import upload

IGNORED = -1
# Largest number of regions that are handed over per image; the foreground comes first.
_MAX_REGIONS = 2000


@dataclass(frozen=True)
class HeadRows:
    """Rows that an auxiliary head was trained on, with their targets, per image.

    Attributes:
        boxes: (n, 4) anchors or regions, XYXY in pixels.
        labels: (n,) classes in 0..K-1, K for background; other rows never become queries.
        gt_boxes: (n, 4) objects of the foreground rows, XYXY in pixels; arbitrary for background.
        features: function from chosen rows (N, T) to their features (N, T, C), with gradient;
            arbitrary for rows that are -1.
    """

    boxes: Sequence[Tensor]
    labels: Sequence[Tensor]
    gt_boxes: Sequence[Tensor]
    features: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CustomQueries:
    """Boxes and targets of the queries made of the rows of one head.

    Attributes:
        boxes: (N, T, 4) cxcywh relative to the image, without gradient and not clipped: anchors may
            be larger than the image. Zeros if the image had no row left.
        labels: (N, T) int64 in 0..K-1, K for background, -1 if the image had no row left.
        gt_boxes: (N, T, 4) XYXY in pixels; arbitrary for background.
        foreground: int64 positions of the positives in the N * T labels, ascending.
    """

    boxes: Tensor
    labels: Tensor
    gt_boxes: Tensor
    foreground: Tensor


class CustomEmbedding(nn.Module):
    """Queries from the boxes and features of the auxiliary heads.

    Args:
        dim: channels C.
        num_heads: number of auxiliary heads.
        bias_dim: numbers per head that tell the heads apart: 1 for all channels, or C.

    Raises:
        ValueError: `bias_dim` is neither 1 nor C.
    """

    uses_features = True

    def __init__(self, dim: int, num_heads: int, bias_dim: int) -> None:
        super().__init__()
        if bias_dim not in (1, dim):
            raise ValueError(f"head_bias_dim must be 1 or the {dim} channels, got {bias_dim}")
        self.head_bias = nn.Parameter(torch.empty(num_heads, bias_dim))
        nn.init.xavier_uniform_(self.head_bias)
        self.embeddings = nn.ModuleList(_HeadEmbedding(dim) for _ in range(num_heads))

    def forward(self, boxes: Tensor, features: Tensor, head: int) -> Queries:
        """Embed the customized queries of one head.

        Args:
            boxes: (N, T, 4) cxcywh relative to the image, not clipped; without gradient.
            features: (N, T, C) features of the boxes; gradients go back to the head.
            head: index of the head.
        """
        boxes = boxes.detach()
        position, content = self.embeddings[head](boxes, features)
        return Queries(content, position + self.head_bias[head], boxes)


class _HeadEmbedding(nn.Module):
    """Position and content of the customized queries of one auxiliary head."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pos_trans, self.pos_trans_norm = nn.Linear(2 * dim, 2 * dim), nn.LayerNorm(2 * dim)
        self.feat_trans, self.feat_norm = nn.Linear(dim, dim), nn.LayerNorm(dim)
        for linear in (self.pos_trans, self.feat_trans):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, boxes: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        encoded = sine_box(_inside(boxes), features.shape[-1] // 2)
        position, content = self.pos_trans_norm(self.pos_trans(encoded)).chunk(2, -1)
        return position, content + self.feat_norm(self.feat_trans(features))


class BoxEmbedding(nn.Module):
    """Queries from the boxes of the auxiliary heads alone, as in Co-DINO.

    The decoder encodes their positions; see `BoxPositions`.

    Args:
        dim: channels C.
        num_heads: number of auxiliary heads.
    """

    uses_features = False

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(_BoxContent(dim) for _ in range(num_heads))

    def forward(self, boxes: Tensor, features: Tensor | None, head: int) -> Queries:
        """Embed the customized queries of one head.

        Args:
            boxes: (N, T, 4) cxcywh relative to the image, not clipped; without gradient.
            features: ignored.
            head: index of the head.
        """
        boxes = boxes.detach()
        return Queries(self.embeddings[head](boxes), None, boxes)


class _BoxContent(nn.Module):
    """Content of the customized queries of one auxiliary head."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pos_trans, self.pos_trans_norm = nn.Linear(2 * dim, dim), nn.LayerNorm(dim)
        nn.init.xavier_uniform_(self.pos_trans.weight)

    def forward(self, boxes: Tensor) -> Tensor:
        encoded = sine_box(_inside(boxes), self.pos_trans.out_features // 2)
        return self.pos_trans_norm(self.pos_trans(encoded))


def _inside(boxes: Tensor) -> Tensor:
    """Clamp boxes to [1e-5, 1 - 1e-5] for their encoding alone; anchors may exceed the image."""
    return inverse_sigmoid(boxes).sigmoid()


def region_rows(regions: list[Instances], maps: list[Tensor], pooler: nn.Module) -> HeadRows:
    """Hand over the regions that an R-CNN was trained on, with the mean of their pooled features.

    All images hand over as many regions as the image with the fewest.

    Args:
        regions: regions per image, foreground first, with `proposal_boxes`, `gt_classes` and,
            unless the image has no objects, `gt_boxes`.
        maps: feature maps (N, C, H, W) for `pooler`.
        pooler: RoI pooling of the R-CNN.
    """
    count = min(_MAX_REGIONS, *(len(x) for x in regions))
    regions = [x[:count] for x in regions]
    boxes = [x.proposal_boxes.tensor for x in regions]

    def features(rows: Tensor) -> Tensor:
        chosen = [Boxes(x) for x in take_rows(boxes, rows)]
        return pooler(maps, chosen).mean((2, 3)).unflatten(0, rows.shape)

    return HeadRows(
        boxes=boxes,
        labels=[x.gt_classes for x in regions],
        gt_boxes=[
            x.gt_boxes.tensor if x.has("gt_boxes") else x.proposal_boxes.tensor for x in regions
        ],
        features=features,
    )


def count_positives(labels: Sequence[Tensor], num_classes: int) -> list[int]:
    """Count the positives of every image; the host waits for a GPU.

    Args:
        labels: (n,) labels per image, positives in 0..K-1.
        num_classes: number of classes K.
    """
    return torch.stack([((x >= 0) & (x < num_classes)).sum() for x in labels]).tolist()


def choose_rows(
    labels: Sequence[Tensor],
    num_classes: int,
    max_count: int = 300,
    min_count: int = 9,
    generator: torch.Generator | None = None,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """Draw the same number of rows for every image, positives first.

    The number is the largest number of positives per image, clamped to `min_count` and `max_count`.
    Images with more positives get a random subset of them; images with fewer get all of them and
    random background rows.

    Args:
        labels: (n,) labels per image, in 0..K-1, K for background; others are never drawn.
        num_classes: number of classes K.
        max_count: largest number of rows.
        min_count: smallest number of rows.
        generator: random generator on any device; the default one of the labels' device if None.
        counts: number of positives per image; counted if None.

    Returns:
        (N, T) int64 rows without repetition; -1 if an image has neither positives nor background
        left.
    """
    most = max(count_positives(labels, num_classes) if counts is None else counts)
    count = max(min(most, max_count), min_count)
    drawn = []
    for image in labels:
        positive = (image >= 0) & (image < num_classes)
        device = image.device if generator is None else generator.device
        # In double precision no two are equal: positives in [1, 2), background in [0, 1).
        keys = torch.rand(len(image), generator=generator, device=device, dtype=torch.float64)
        allowed = positive | (image == num_classes)
        keys = torch.where(allowed, keys.to(image.device) + positive, -1.0)
        best, rows = keys.topk(min(count, len(keys)))
        rows = torch.where(best >= 0, rows, -1)
        drawn.append(F.pad(rows, (0, count - len(rows)), value=-1))
    return torch.stack(drawn)


@torch.no_grad()
def custom_queries(
    rows: Tensor,
    handed_over: HeadRows,
    counts: Sequence[int],
    image_sizes: list[tuple[int, int]],
) -> CustomQueries:
    """Gather boxes and targets of the chosen rows.

    Args:
        rows: (N, T) int64 rows, positives first, from `choose_rows`.
        handed_over: rows of the auxiliary head.
        counts: number of positives per image among all rows.
        image_sizes: (height, width) of each image in pixels.
    """
    boxes, length = take_rows(handed_over.boxes, rows), rows.shape[1]
    first = [torch.arange(min(n, length)) + i * length for i, n in enumerate(counts)]
    return CustomQueries(
        boxes=relative_boxes(boxes, image_scales(image_sizes, boxes)[:, None]),
        labels=take_rows(handed_over.labels, rows, fill=IGNORED),
        gt_boxes=take_rows(handed_over.gt_boxes, rows),
        foreground=upload(torch.cat(first), rows.device),
    )


def take_rows(values: Sequence[Tensor], rows: Tensor, fill: int = 0) -> Tensor:
    """Gather rows per image.

    Args:
        values: (n, ...) values per image.
        rows: (N, T) int64 rows; -1 takes `fill`.
        fill: value of the rows that are -1, attached to the graph.

    Returns:
        (N, T, ...) values.
    """
    padded = [torch.cat([x, x.new_full((1, *x.shape[1:]), fill)]) for x in values]
    return torch.stack([x[index] for x, index in zip(padded, rows, strict=True)])
