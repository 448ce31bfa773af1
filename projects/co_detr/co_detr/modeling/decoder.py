"""Decoder of Deformable DETR: queries refine their boxes layer by layer.

Shape letters: N images, Q queries, C channels, D layers, S cells of all levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from brloss_d2.projects.co_detr.layers.geometry import FeatureGeometry
from brloss_d2.projects.co_detr.layers.position import inverse_sigmoid
from brloss_d2.projects.co_detr.layers.transformer import DecoderLayer


@dataclass(frozen=True)
class Queries:
    """Input of the decoder.

    Attributes:
        content: (N, Q, C) features.
        position: (N, Q, C) encoded positions, which every layer adds to the features.
        references: (N, Q, 4) boxes to start from, cxcywh relative to the image.
    """

    content: Tensor
    position: Tensor
    references: Tensor


class DeformableDecoder(nn.Module):
    """Decoder of Deformable DETR with box refinement (Zhu et al., ICLR 2021, appendix A.4).

    Args:
        dim: channels C.
        num_heads: number of heads of both attentions.
        num_levels: number of feature levels of the memory.
        num_points: points that each head samples per level.
        num_layers: number of layers D.
        ffn_dim: hidden channels of each layer's FFN.
    """

    def __init__(
        self,
        *,
        dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        num_layers: int = 6,
        ffn_dim: int = 2048,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList(
            DecoderLayer(dim, num_heads, num_levels, num_points, ffn_dim) for _ in range(num_layers)
        )

    def forward(
        self,
        queries: Queries,
        memory: Tensor,
        geometry: FeatureGeometry,
        box_branches: Sequence[nn.Module],
    ) -> tuple[Tensor, Tensor]:
        """Decode the queries.

        Each layer predicts a step from the box of the layer before. The step gets gradients from
        the layer's own box and from the next one ("look forward twice", Zhang et al., ICLR 2023),
        but from no later one, and none through the locations at which later layers sample.

        Args:
            queries: content, positions and boxes of the queries.
            memory: (N, S, C) features of the cells, from the encoder.
            geometry: shapes and padding of the levels.
            box_branches: module per layer that maps features (N, Q, C) to steps (N, Q, 4) in logit
                space.

        Returns:
            (D, N, Q, C) features of each layer, without a final normalization, and (D, N, Q, 4)
            boxes, cxcywh relative to the image.
        """
        x, references = queries.content, queries.references
        ratios = torch.cat([geometry.valid_ratios] * 2, -1)[:, None]
        hidden, boxes = [], []
        for layer, branch in zip(self.layers, box_branches, strict=True):
            level_references = references.detach()[:, :, None] * ratios
            x = layer(x, queries.position, memory, level_references, geometry)
            step = branch(x)
            boxes.append((step + inverse_sigmoid(references)).sigmoid())
            references = (step + inverse_sigmoid(references.detach())).sigmoid()
            hidden.append(x)
        return torch.stack(hidden), torch.stack(boxes)
