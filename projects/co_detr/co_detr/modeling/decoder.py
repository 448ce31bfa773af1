"""The decoder: queries refine their boxes layer by layer.

Shapes: N images, Q queries, C channels, D layers, L levels, S cells of all levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from brloss_d2.projects.co_detr.layers.position import inverse_sigmoid
from brloss_d2.projects.co_detr.layers.transformer import DecoderLayer
from brloss_d2.projects.co_detr.modeling.geometry import FeatureGeometry


@dataclass(frozen=True)
class Queries:
    """What the decoder starts from.

    Attributes:
        content: (N, Q, C) features.
        position: (N, Q, C) what every layer adds to the features to tell where a query looks.
        references: (N, Q, 4) boxes, cxcywh relative to the image.
    """

    content: Tensor
    position: Tensor
    references: Tensor


class DeformableDecoder(nn.Module):
    """Decoder of Deformable DETR with box refinement (Zhu et al., ICLR 2021, appendix A.4).

    Args:
        dim: channels C.
        num_heads: of the attentions.
        num_levels: feature maps of the memory.
        num_points: samples a head and level.
        num_layers: D.
        ffn_dim: hidden channels of the feed-forward networks.
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
    ):
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

        Each layer's box is a step from the box of the layer before. The steps of a layer learn from
        its own box and from the next one ("look forward twice", Zhang et al., ICLR 2023), but from
        no later one; and where a layer samples is no way for gradients.

        Args:
            queries: what to start from.
            memory: (N, S, C), from the encoder.
            geometry: of the feature maps.
            box_branches: one for each layer, (N, Q, C) to (N, Q, 4) steps in logit space.

        Returns:
            (D, N, Q, C) features without a last normalization and (D, N, Q, 4) boxes, cxcywh
            relative to the image.
        """
        x, references = queries.content, queries.references
        ratios = torch.cat([geometry.valid_ratios] * 2, -1)[:, None]
        hidden, boxes = [], []
        for layer, branch in zip(self.layers, box_branches, strict=True):
            places = references.detach()[:, :, None] * ratios
            x = layer(x, queries.position, memory, places, geometry)
            step = branch(x)
            boxes.append((step + inverse_sigmoid(references)).sigmoid())
            references = (step + inverse_sigmoid(references.detach())).sigmoid()
            hidden.append(x)
        return torch.stack(hidden), torch.stack(boxes)
