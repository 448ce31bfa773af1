"""Layers of the transformer, normalized after each residual sum, without dropout.

Shape letters: N images, Q queries, S cells of all levels, L levels, C channels.
"""

from itertools import pairwise

from torch import Tensor, nn

from brloss_d2.projects.co_detr.layers.geometry import FeatureGeometry
from brloss_d2.projects.co_detr.layers.ms_deform_attn import MSDeformAttn


class FFN(nn.Module):
    """Two linear maps with a ReLU in between, without the residual.

    Args:
        dim: channels C of input and output.
        ffn_dim: hidden channels.
    """

    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return self.linear2(self.linear1(x).relu())


class MLP(nn.Module):
    """Linear maps with ReLUs in between, with PyTorch's initialization.

    Args:
        dims: channels of the input, of each hidden layer and of the output.
    """

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dims[0]) to (..., dims[-1])."""
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class EncoderLayer(nn.Module):
    """Deformable attention of cells to cells, then an FFN.

    Its arguments are those of `DeformableEncoder`.
    """

    def __init__(
        self, dim: int, num_heads: int, num_levels: int, num_points: int, ffn_dim: int
    ) -> None:
        super().__init__()
        self.attn = MSDeformAttn(dim, num_heads, num_levels, num_points)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = FFN(dim, ffn_dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(
        self, x: Tensor, position: Tensor, references: Tensor, geometry: FeatureGeometry
    ) -> Tensor:
        """Update the features of the cells.

        Args:
            x: (N, S, C) features.
            position: (N, S, C) encoded positions, added to the queries but not to the values.
            references: (N, S, L, 2) points; see `MSDeformAttn.forward`.
            geometry: shapes and padding of the levels.

        Returns:
            (N, S, C) features.
        """
        x = self.norm1(self.attn(x, position, x, references, geometry))
        return self.norm2(x + self.ffn(x))


class DecoderLayer(nn.Module):
    """Attention of queries to queries, deformable attention to the memory, then an FFN.

    Its arguments are those of `DeformableDecoder`.
    """

    def __init__(
        self, dim: int, num_heads: int, num_levels: int, num_points: int, ffn_dim: int
    ) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        nn.init.xavier_uniform_(self.self_attn.out_proj.weight)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = MSDeformAttn(dim, num_heads, num_levels, num_points)
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = FFN(dim, ffn_dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        memory: Tensor,
        references: Tensor,
        geometry: FeatureGeometry,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Update the features of the queries.

        Args:
            query: (N, Q, C) features.
            query_pos: (N, Q, C) encoded positions, added to queries and keys but not to values.
            memory: (N, S, C) features of the cells.
            references: (N, Q, L, 4) boxes; see `MSDeformAttn.forward`.
            geometry: shapes and padding of the levels.
            mask: (Q, Q) bool, True where a query (row) must not attend to another (column).

        Returns:
            (N, Q, C) features.
        """
        located = query + query_pos
        attended, _ = self.self_attn(located, located, query, need_weights=False, attn_mask=mask)
        query = self.norm1(query + attended)
        query = self.norm2(self.cross_attn(query, query_pos, memory, references, geometry))
        return self.norm3(query + self.ffn(query))
