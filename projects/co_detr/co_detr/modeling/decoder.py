"""Decoder of Deformable DETR and of DINO: queries refine their boxes layer by layer.

Shape letters: N images, Q queries, C channels, D layers, L levels, S cells of all levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from brloss_d2.losses.base import check_numbers
from brloss_d2.projects.co_detr.layers.geometry import FeatureGeometry
from brloss_d2.projects.co_detr.layers.position import inverse_sigmoid, sine_box
from brloss_d2.projects.co_detr.layers.recompute import run
from brloss_d2.projects.co_detr.layers.transformer import MLP, DecoderLayer


@dataclass(frozen=True)
class Queries:
    """Input of the decoder.

    Attributes:
        content: (N, Q, C) features.
        position: (N, Q, C) encoded positions, which every layer adds to the features; None for a
            decoder that encodes the boxes of each layer.
        references: (N, Q, 4) boxes to start from, cxcywh relative to the image.
        mask: (Q, Q) bool, True where a query (row) must not attend to another (column); None if
            all of them attend to each other.
    """

    content: Tensor
    position: Tensor | None
    references: Tensor
    mask: Tensor | None = None


class BoxPositions(MLP):
    """Positions of queries from their boxes, encoded again in every layer (DAB-DETR, ICLR 2022).

    Args:
        dim: channels C, a multiple of 4.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(2 * dim, dim, dim)
        for linear in self.layers:
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, boxes: Tensor) -> Tensor:
        """Encode boxes (..., 4), cxcywh relative to the padded batch, as (..., C)."""
        x, y, width, height = boxes.unbind(-1)
        order = torch.stack([y, x, width, height], -1)  # as published
        return super().forward(sine_box(order, self.layers[0].in_features // 4))


class DeformableDecoder(nn.Module):
    """Decoder of Deformable DETR with box refinement (Zhu et al., ICLR 2021, appendix A.4).

    With `ref_point_head` and `norm` it is that of DINO (Zhang et al., ICLR 2023).

    Args:
        dim: channels C.
        num_heads: number of heads of both attentions.
        num_levels: number of feature levels L of the memory.
        num_points: points that each head samples per level.
        num_layers: number of layers D.
        ffn_dim: hidden channels of each layer's FFN.
        ref_point_head: module that encodes the boxes from which a layer starts as the positions of
            its queries; None for queries with positions of their own.
        norm: normalization of the features from which boxes and classes are predicted; the boxes
            from which the next layer starts come from the features before it. None is none.
        reference_eps: smallest coordinate, size, and distance to 1, of a reference in logit space.
        num_recomputed: number of layers, from the first, whose activations are computed again in
            the backward pass instead of being stored.
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
        ref_point_head: BoxPositions | None = None,
        norm: nn.Module | None = None,
        reference_eps: float = 1e-5,
        num_recomputed: int = 0,
    ) -> None:
        super().__init__()
        check_numbers(">= 0", num_recomputed=num_recomputed)
        self.dim, self.reference_eps, self.num_recomputed = dim, reference_eps, num_recomputed
        self.layers = nn.ModuleList(
            DecoderLayer(dim, num_heads, num_levels, num_points, ffn_dim) for _ in range(num_layers)
        )
        self.ref_point_head, self.norm = ref_point_head, norm

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
            (D, N, Q, C) features of each layer, normalized if there is a `norm`, and (D, N, Q, 4)
            boxes, cxcywh relative to the image.
        """
        x, references, position = queries.content, queries.references, queries.position
        ratios = torch.cat([geometry.valid_ratios] * 2, -1)[:, None]
        hidden, boxes = [], []
        for d, (layer, branch) in enumerate(zip(self.layers, box_branches, strict=True)):
            level_references = references.detach()[:, :, None] * ratios
            if self.ref_point_head is not None:
                position = self.ref_point_head(level_references[:, :, 0])
            inputs = (x, position, memory, level_references, geometry, queries.mask)
            x = run(layer, *inputs, recompute=d < self.num_recomputed)
            step = branch(x)
            hidden.append(x if self.norm is None else self.norm(x))
            own_step = step if self.norm is None else branch(hidden[-1])
            start = inverse_sigmoid(references, self.reference_eps)
            boxes.append((own_step + start).sigmoid())
            references = (step + start.detach()).sigmoid()
        return torch.stack(hidden), torch.stack(boxes)
