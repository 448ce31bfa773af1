"""The transformer of Co-Deformable-DETR with its branches: two-stage, with mixed selection.

Shapes: N images, Q queries, T customized queries, K classes, C channels, D decoder layers,
L levels, S cells of all levels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from brloss_d2.projects.co_detr.layers.position import inverse_sigmoid, sine_box
from brloss_d2.projects.co_detr.layers.transformer import MLP
from brloss_d2.projects.co_detr.modeling.decoder import DeformableDecoder, Queries
from brloss_d2.projects.co_detr.modeling.encoder import DeformableEncoder
from brloss_d2.projects.co_detr.modeling.geometry import FeatureGeometry

# Side of the proposals of the finest level, relative to the image; twice as much on each level.
_PROPOSAL_SIZE = 0.05
# A cell makes a proposal if all four numbers of its box keep that distance from 0 and 1.
_MARGIN = 0.01


@dataclass(frozen=True)
class QueryPredictions:
    """What the decoder predicts after each layer.

    Attributes:
        logits: (D, N, Q, K) class logits.
        boxes: (D, N, Q, 4) cxcywh relative to the image, in [0, 1].
        hidden: (D, N, Q, C) the features of the queries.
    """

    logits: Tensor
    boxes: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class Proposals:
    """What the cells of the memory predict, and the best of them as queries.

    Attributes:
        logits: (N, S, K) class logits, of which the first alone ranks the cells.
        boxes: (N, S, 4) cxcywh relative to the image; (1, 1, 1, 1) without gradient where a cell is
            in the padding or too near to the border of the image.
        topk_index: (N, Q) int64, the cells that become queries, best first.
        queries: made of these; their references have no gradient.
    """

    logits: Tensor
    boxes: Tensor
    topk_index: Tensor
    queries: Queries


class CoDeformableHead(nn.Module):
    """Encoder, two-stage proposals, decoder, and customized queries for auxiliary heads.

    Co-DETR (Zong et al., ICCV 2023) over Deformable DETR (Zhu et al., ICLR 2021). The positions of
    the queries come from the best proposals, their content is learned ("mixed selection").

    Args:
        encoder: makes the memory.
        decoder: of D layers.
        num_classes: K.
        num_queries: Q; small images with fewer cells have as many queries as cells.
        num_custom_heads: auxiliary heads that hand over queries.
        head_bias_dim: how much tells the decoder which head a query is from: 1, as published, is
            one number added to all channels of the position, C one for each channel.
        prior_prob: score at the start of training, in (0, 1).

    Raises:
        ValueError: `head_bias_dim` is neither 1 nor C.
    """

    def __init__(
        self,
        *,
        encoder: DeformableEncoder,
        decoder: DeformableDecoder,
        num_classes: int,
        num_queries: int = 300,
        num_custom_heads: int = 2,
        head_bias_dim: int = 1,
        prior_prob: float = 0.01,
    ):
        super().__init__()
        dim, count = decoder.dim, len(decoder.layers) + 1
        self.encoder, self.decoder = encoder, decoder
        self.num_classes = num_classes
        self.enc_output, self.enc_output_norm = nn.Linear(dim, dim), nn.LayerNorm(dim)
        self.pos_trans, self.pos_trans_norm = nn.Linear(2 * dim, 2 * dim), nn.LayerNorm(2 * dim)
        self.content = nn.Embedding(num_queries, dim)
        self.custom = CustomEmbedding(dim, num_custom_heads, head_bias_dim)
        # One for each decoder layer, the last for the proposals.
        self.class_branches = nn.ModuleList(nn.Linear(dim, num_classes) for _ in range(count))
        self.box_branches = nn.ModuleList(MLP(dim, dim, dim, 4) for _ in range(count))
        self.downsample = nn.Sequential(
            nn.Conv2d(dim, dim, 3, stride=2, padding=1), nn.GroupNorm(32, dim)
        )
        self._initialize(prior_prob)

    def _initialize(self, prior_prob: float) -> None:
        for linear in (self.enc_output, self.pos_trans):
            nn.init.xavier_uniform_(linear.weight)
        for branch in self.class_branches:
            nn.init.constant_(branch.bias, -math.log((1 - prior_prob) / prior_prob))
        for branch in self.box_branches:
            nn.init.zeros_(branch.layers[-1].weight)
            nn.init.zeros_(branch.layers[-1].bias)

    def encode(self, features: list[Tensor], geometry: FeatureGeometry) -> Tensor:
        """(N, S, C) the memory of the feature maps, level by level, row by row."""
        return self.encoder(features, geometry)

    def propose(self, memory: Tensor, geometry: FeatureGeometry) -> Proposals:
        """Predict a box in every cell and make queries of the `min(Q, S)` best."""
        start = proposal_logits(geometry)
        unusable = start.isinf().any(-1, keepdim=True)
        cells = self.enc_output_norm(self.enc_output(memory.masked_fill(unusable, 0)))
        logits = self.class_branches[-1](cells)
        box_logits = self.box_branches[-1](cells) + start
        best = logits[..., 0].topk(min(self.content.num_embeddings, logits.shape[1])).indices
        chosen = box_logits.gather(1, best[..., None].expand(-1, -1, 4)).detach()
        return Proposals(logits, box_logits.sigmoid(), best, self._queries(chosen.sigmoid()))

    def decode(
        self, queries: Queries, memory: Tensor, geometry: FeatureGeometry
    ) -> QueryPredictions:
        """Predict from queries, the head's own or customized ones."""
        hidden, boxes = self.decoder(queries, memory, geometry, self.box_branches[:-1])
        branches = zip(self.class_branches[:-1], hidden, strict=True)
        logits = torch.stack([branch(x) for branch, x in branches])
        return QueryPredictions(logits, boxes, hidden)

    def embed_custom(self, boxes: Tensor, features: Tensor, head: int) -> Queries:
        """Make queries of what an auxiliary head found positive.

        Args:
            boxes: (N, T, 4) cxcywh relative to the image, not clipped.
            features: (N, T, C) that the head has of them; gradients go back to the head.
            head: its number.
        """
        return self.custom(boxes, features, head)

    def pyramid(self, memory: Tensor, geometry: FeatureGeometry) -> list[Tensor]:
        """Feature maps for the auxiliary heads: those of the memory and a coarser one.

        Returns:
            L + 1 contiguous maps (N, C, H, W), finest first.
        """
        levels = memory.split([height * width for height, width in geometry.shapes], 1)
        maps = [
            level.mT.contiguous().unflatten(2, shape)
            for level, shape in zip(levels, geometry.shapes, strict=True)
        ]
        return [*maps, self.downsample(maps[-1])]

    def _queries(self, references: Tensor) -> Queries:
        """(N, Q, 4) boxes to queries."""
        dim = self.decoder.dim
        position = self.pos_trans_norm(self.pos_trans(sine_box(references, dim // 2)))
        content = self.content.weight[: references.shape[1]].expand(len(references), -1, -1)
        return Queries(content, position[..., :dim], references)


class CustomEmbedding(nn.Module):
    """Queries from the boxes and features of auxiliary heads.

    Args:
        dim: channels C.
        num_heads: auxiliary heads.
        bias_dim: 1 or C, numbers that tell each head.

    Raises:
        ValueError: `bias_dim` is neither.
    """

    def __init__(self, dim: int, num_heads: int, bias_dim: int):
        super().__init__()
        if bias_dim not in (1, dim):
            raise ValueError(f"head_bias_dim must be 1 or the {dim} channels, got {bias_dim}")
        self.dim = dim
        self.head_bias = nn.Parameter(torch.empty(num_heads, bias_dim))
        nn.init.xavier_uniform_(self.head_bias)
        self.embeddings = nn.ModuleList(_HeadEmbedding(dim) for _ in range(num_heads))

    def forward(self, boxes: Tensor, features: Tensor, head: int) -> Queries:
        embedding, boxes = self.embeddings[head], boxes.detach()
        # Encoded is what lies in [1e-5, 1 - 1e-5]; anchors may lie outside the image.
        encoded = sine_box(inverse_sigmoid(boxes).sigmoid(), self.dim // 2)
        both = embedding.pos_trans_norm(embedding.pos_trans(encoded))
        position, content = both.split(self.dim, -1)
        content = content + embedding.feat_norm(embedding.feat_trans(features))
        return Queries(content, position + self.head_bias[head], boxes)


class _HeadEmbedding(nn.Module):
    """The parameters of one auxiliary head."""

    def __init__(self, dim: int):
        super().__init__()
        self.pos_trans, self.pos_trans_norm = nn.Linear(2 * dim, 2 * dim), nn.LayerNorm(2 * dim)
        self.feat_trans, self.feat_norm = nn.Linear(dim, dim), nn.LayerNorm(dim)
        for linear in (self.pos_trans, self.feat_trans):
            nn.init.xavier_uniform_(linear.weight)


def proposal_logits(geometry: FeatureGeometry) -> Tensor:
    """(N, S, 4) the boxes that cells start from, cxcywh relative to the image, in logit space.

    Infinite in the padding and where a center is within 1 % of the border of the image.
    """
    levels = [_level_boxes(padding, level) for level, padding in enumerate(geometry.masks)]
    boxes = torch.cat(levels, 1)
    # Centers of cells in the padding are beyond 1.
    usable = ((boxes > _MARGIN) & (boxes < 1 - _MARGIN)).all(-1)
    return boxes.logit().masked_fill(~usable[..., None], torch.inf)


def _level_boxes(padding: Tensor, level: int) -> Tensor:
    """(N, H W, 4) squares around the cells of a level, relative to the part without padding."""
    rows, columns = (torch.arange(n, device=padding.device) + 0.5 for n in padding.shape[1:])
    valid_columns, valid_rows = (~padding[:, 0]).sum(1), (~padding[:, :, 0]).sum(1)
    x = columns / valid_columns[:, None]
    y = rows / valid_rows[:, None]
    x, y = x[:, None].expand(padding.shape), y[..., None].expand(padding.shape)
    size = torch.full_like(x, _PROPOSAL_SIZE * 2**level)
    return torch.stack([x, y, size, size], -1).flatten(1, 2)
