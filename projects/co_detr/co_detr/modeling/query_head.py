"""Query heads of Co-DETR: encoder, two-stage proposals, decoder and their branches.

Shape letters: N images, Q queries, K classes, C channels, D decoder layers, L levels, S cells of
all levels.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from brloss_d2.projects.co_detr.layers.geometry import FeatureGeometry
from brloss_d2.projects.co_detr.layers.position import sine_box
from brloss_d2.projects.co_detr.layers.transformer import MLP
from brloss_d2.projects.co_detr.modeling.custom_queries import BoxEmbedding, CustomEmbedding
from brloss_d2.projects.co_detr.modeling.decoder import DeformableDecoder, Queries
from brloss_d2.projects.co_detr.modeling.denoising import DenoisingQueries
from brloss_d2.projects.co_detr.modeling.encoder import DeformableEncoder

# Side of the proposals of the finest level, relative to the image; doubled on each further level.
_PROPOSAL_SIZE = 0.05
# Smallest distance from 0 and 1 of the four numbers of a proposal; other cells propose nothing.
_MARGIN = 0.01


@dataclass(frozen=True)
class QueryPredictions:
    """Predictions after each decoder layer.

    Attributes:
        logits: (D, N, Q, K) class logits.
        boxes: (D, N, Q, 4) cxcywh relative to the image, in [0, 1].
        hidden: (D, N, Q, C) features of the queries.
    """

    logits: Tensor
    boxes: Tensor
    hidden: Tensor

    def split(self, count: int) -> tuple["QueryPredictions", "QueryPredictions"]:
        """Return the predictions for the first `count` queries, and those for the others."""
        tensors = (self.logits, self.boxes, self.hidden)
        first, others = zip(*(x.tensor_split([count], 2) for x in tensors), strict=True)
        return QueryPredictions(*first), QueryPredictions(*others)


@dataclass(frozen=True)
class Proposals:
    """Predictions of the cells of the memory, and the queries made of the best ones.

    Attributes:
        logits: (N, S, K) class logits, or (N, Q, K) if only the best cells are trained.
        boxes: (N, S, 4) or (N, Q, 4) cxcywh relative to the image; (1, 1, 1, 1) without gradient
            for cells in the padding or too close to the border of the image.
        topk_index: (N, Q) int64 index of the cells that become queries, best first.
        queries: queries made of these cells, with references that have no gradient.
    """

    logits: Tensor
    boxes: Tensor
    topk_index: Tensor
    queries: Queries


class QueryHead(nn.Module, ABC):
    """What the query heads share: their content is learned, their boxes are the best proposals.

    "Mixed selection" (Zhang et al., ICLR 2023) over the encoder and the decoder of Deformable DETR
    (Zhu et al., ICLR 2021), with customized queries (Zong et al., ICCV 2023).

    Args:
        encoder: module that turns feature maps into the memory.
        decoder: module of D layers that refines queries.
        custom: module that makes queries of the rows of the auxiliary heads.
        num_classes: number of classes K.
        num_queries: number of queries Q; images with fewer cells have one query per cell.
        prior_prob: score at the start of training, in (0, 1).
        denoising: module that makes queries of noisy objects in training; None for none.
    """

    def __init__(
        self,
        *,
        encoder: DeformableEncoder,
        decoder: DeformableDecoder,
        custom: nn.Module,
        num_classes: int,
        num_queries: int,
        prior_prob: float,
        denoising: DenoisingQueries | None = None,
    ) -> None:
        super().__init__()
        dim, count = decoder.dim, len(decoder.layers) + 1
        self.encoder, self.decoder, self.custom = encoder, decoder, custom
        self.denoising, self.num_classes = denoising, num_classes
        self.enc_output, self.enc_output_norm = nn.Linear(dim, dim), nn.LayerNorm(dim)
        self.content = nn.Embedding(num_queries, dim)
        # One branch per decoder layer, and the last for the proposals.
        classify = [nn.Linear(dim, num_classes) for _ in range(count)]
        regress = [MLP(dim, dim, dim, 4) for _ in range(count)]
        self.class_branches, self.box_branches = nn.ModuleList(classify), nn.ModuleList(regress)
        self.downsample = nn.Sequential(
            nn.Conv2d(dim, dim, 3, stride=2, padding=1), nn.GroupNorm(32, dim)
        )
        nn.init.xavier_uniform_(self.enc_output.weight)
        for linear in classify:
            nn.init.constant_(linear.bias, -math.log((1 - prior_prob) / prior_prob))
        # At the start of training, every layer predicts its references.
        for mlp in regress:
            for parameter in mlp.layers[-1].parameters():
                nn.init.zeros_(parameter)

    @abstractmethod
    def rank(self, logits: Tensor) -> Tensor:
        """Turn the class logits of the cells (N, S, K) into scores (N, S) to choose the best."""

    @abstractmethod
    def make_queries(self, references: Tensor) -> Queries:
        """Make queries of boxes.

        Args:
            references: (N, Q, 4) cxcywh relative to the image; Q is at most `num_queries`.
        """

    def propose(self, memory: Tensor, geometry: FeatureGeometry) -> Proposals:
        """Predict a box per cell and make queries of the best cells.

        Args:
            memory: (N, S, C) features of the cells, from the encoder.
            geometry: shapes and padding of the levels.
        """
        start = proposal_logits(geometry)
        unusable = start.isinf().any(-1, keepdim=True)
        cells = self.enc_output_norm(self.enc_output(memory.masked_fill(unusable, 0)))
        logits = self.class_branches[-1](cells)
        box_logits = self.box_branches[-1](cells) + start
        count = min(self.content.num_embeddings, logits.shape[1])
        best = self.rank(logits).topk(count).indices
        references = box_logits.gather(1, best[..., None].expand(-1, -1, 4)).detach().sigmoid()
        return Proposals(logits, box_logits.sigmoid(), best, self.make_queries(references))

    def decode(
        self, queries: Queries, memory: Tensor, geometry: FeatureGeometry
    ) -> QueryPredictions:
        """Predict classes and boxes after each decoder layer.

        Args:
            queries: queries made of proposals, or customized queries.
            memory: (N, S, C) features of the cells, from the encoder.
            geometry: shapes and padding of the levels.
        """
        hidden, boxes = self.decoder(queries, memory, geometry, self.box_branches[:-1])
        branches = zip(self.class_branches[:-1], hidden, strict=True)
        logits = torch.stack([branch(x) for branch, x in branches])
        return QueryPredictions(logits, boxes, hidden)

    def pyramid(self, memory: Tensor, geometry: FeatureGeometry) -> list[Tensor]:
        """Make feature maps for the auxiliary heads: those of the memory and a coarser one.

        Args:
            memory: (N, S, C) features of the cells, from the encoder.
            geometry: shapes and padding of the levels.

        Returns:
            L + 1 contiguous maps (N, C, H, W), finest first.
        """
        levels = memory.split([height * width for height, width in geometry.shapes], 1)
        maps = [
            level.mT.contiguous().unflatten(2, shape)
            for level, shape in zip(levels, geometry.shapes, strict=True)
        ]
        return [*maps, self.downsample(maps[-1])]

    def _learned_content(self, references: Tensor) -> Tensor:
        return self.content.weight[: references.shape[1]].expand(references.shape[0], -1, -1)


class CoDeformableHead(QueryHead):
    """Query head of Co-Deformable-DETR (Zong et al., ICCV 2023).

    The first class alone ranks the cells. A query keeps the position of its proposal.

    Args:
        encoder: module that turns feature maps into the memory.
        decoder: module of D layers that refines queries.
        num_classes: number of classes K.
        num_queries: number of queries Q; images with fewer cells have one query per cell.
        num_custom_heads: number of auxiliary heads that hand over rows.
        head_bias_dim: numbers that tell the decoder which head a query is from: 1, as published,
            is added to all channels of the position; C is one number per channel.
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
    ) -> None:
        dim = decoder.dim
        super().__init__(
            encoder=encoder,
            decoder=decoder,
            custom=CustomEmbedding(dim, num_custom_heads, head_bias_dim),
            num_classes=num_classes,
            num_queries=num_queries,
            prior_prob=prior_prob,
        )
        self.pos_trans, self.pos_trans_norm = nn.Linear(2 * dim, 2 * dim), nn.LayerNorm(2 * dim)
        nn.init.xavier_uniform_(self.pos_trans.weight)

    def rank(self, logits: Tensor) -> Tensor:
        """Return the logits of the first class, for which all proposals are trained."""
        return logits[..., 0]

    def make_queries(self, references: Tensor) -> Queries:
        """Make queries of boxes (N, Q, 4): learned content, positions encoded from the boxes."""
        dim = self.decoder.dim
        position = self.pos_trans_norm(self.pos_trans(sine_box(references, dim // 2)))
        return Queries(self._learned_content(references), position[..., :dim], references)


class CoDINOHead(QueryHead):
    """Query head of Co-DINO: DINO (Zhang et al., ICLR 2023) with customized queries.

    The best class ranks the cells, and the best cells alone are trained as proposals. The decoder
    encodes the positions; see `BoxPositions`.

    Args:
        encoder: module that turns feature maps into the memory.
        decoder: module of D layers that refines queries, with a `ref_point_head`.
        denoising: module that makes queries of noisy objects in training; None for none.
        num_classes: number of classes K.
        num_queries: number of queries Q; images with fewer cells have one query per cell.
        num_custom_heads: number of auxiliary heads that hand over rows.
        prior_prob: score at the start of training, in (0, 1).
    """

    def __init__(
        self,
        *,
        encoder: DeformableEncoder,
        decoder: DeformableDecoder,
        denoising: DenoisingQueries | None,
        num_classes: int,
        num_queries: int = 900,
        num_custom_heads: int = 2,
        prior_prob: float = 0.01,
    ) -> None:
        super().__init__(
            encoder=encoder,
            decoder=decoder,
            custom=BoxEmbedding(decoder.dim, num_custom_heads),
            num_classes=num_classes,
            num_queries=num_queries,
            prior_prob=prior_prob,
            denoising=denoising,
        )

    def rank(self, logits: Tensor) -> Tensor:
        """Return the logits of the best class of each cell."""
        return logits.amax(-1)

    def make_queries(self, references: Tensor) -> Queries:
        """Make queries of boxes (N, Q, 4) with learned content."""
        return Queries(self._learned_content(references), None, references)

    def propose(self, memory: Tensor, geometry: FeatureGeometry) -> Proposals:
        """Predict a box per cell, make queries of the best cells, and keep those alone."""
        proposals = super().propose(memory, geometry)
        best = proposals.topk_index[..., None]
        return replace(
            proposals,
            logits=proposals.logits.gather(1, best.expand(-1, -1, self.num_classes)),
            boxes=proposals.boxes.gather(1, best.expand(-1, -1, 4)),
        )


def proposal_logits(geometry: FeatureGeometry) -> Tensor:
    """Compute the square box around each cell, relative to the image, in logit space.

    Returns:
        (N, S, 4) logits of cxcywh; infinite for cells in the padding and for centers within 1 % of
        the border of the image.
    """
    places = geometry.centers / geometry.covered[:, geometry.levels]
    sizes = (_PROPOSAL_SIZE * 2.0**geometry.levels)[:, None].expand_as(places)
    boxes = torch.cat([places, sizes], -1)
    # Centers of cells in the padding are beyond 1.
    usable = ((boxes > _MARGIN) & (boxes < 1 - _MARGIN)).all(-1)
    return boxes.logit().masked_fill(~usable[..., None], torch.inf)
