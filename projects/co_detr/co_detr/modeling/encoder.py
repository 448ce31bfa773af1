"""Encoder of Deformable DETR (Zhu et al., ICLR 2021).

Shape letters: N images, C channels, L levels, H_l x W_l cells of a level, S cells of all levels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from brloss_d2.losses.base import check_numbers
from brloss_d2.projects.co_detr.layers.geometry import FeatureGeometry
from brloss_d2.projects.co_detr.layers.position import sine_map
from brloss_d2.projects.co_detr.layers.recompute import run
from brloss_d2.projects.co_detr.layers.transformer import EncoderLayer
from brloss_d2.utils.devices import upload


class DeformableEncoder(nn.Module):
    """Layers of deformable attention between the cells of all levels.

    Args:
        dim: channels C of the feature maps.
        num_heads: number of attention heads.
        num_levels: number of feature levels L.
        num_points: points that each head samples per level.
        num_layers: number of layers.
        ffn_dim: hidden channels of each layer's FFN.
        temperature: base of the frequencies of the positions; see `sine_map`.
        offset: number added to the counts of rows and columns; see `sine_map`.
        num_recomputed: number of layers, from the first, whose activations are computed again in
            the backward pass instead of being stored.
    """

    def __init__(
        self,
        dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        num_layers: int = 6,
        ffn_dim: int = 2048,
        temperature: float = 10000.0,
        offset: float = -0.5,
        num_recomputed: int = 0,
    ) -> None:
        super().__init__()
        self.temperature, self.offset = temperature, offset
        check_numbers(">= 0", num_recomputed=num_recomputed)
        self.num_recomputed = num_recomputed
        self.level_embed = nn.Parameter(torch.randn(num_levels, dim))
        self.layers = nn.ModuleList(
            EncoderLayer(dim, num_heads, num_levels, num_points, ffn_dim) for _ in range(num_layers)
        )

    def forward(self, features: Sequence[Tensor], geometry: FeatureGeometry) -> Tensor:
        """Encode the feature maps. Padded cells are encoded too, but no attention reads them.

        Args:
            features: (N, C, H_l, W_l) map per level, finest first.
            geometry: shapes and padding of the levels.

        Returns:
            (N, S, C) memory, level by level, row by row.
        """
        x, dim = _flatten(features), self.level_embed.shape[1] // 2
        sines = [sine_map(mask, dim, self.temperature, self.offset) for mask in geometry.masks]
        levels = self.level_embed[:, :, None, None]
        position = _flatten([sine + level for sine, level in zip(sines, levels, strict=True)])
        references = cell_references(geometry)
        for i, layer in enumerate(self.layers):
            inputs = (x, position, references, geometry)
            x = run(layer, *inputs, recompute=i < self.num_recomputed)
        return x


def cell_references(geometry: FeatureGeometry) -> Tensor:
    """Compute the center of each cell, normalized by the padded size of each level.

    Returns:
        (N, S, L, 2) points (x, y).
    """
    ratios = geometry.valid_ratios
    sizes = upload(torch.tensor(geometry.shapes).flip(-1), ratios.device)  # (width, height)
    centers = geometry.centers / (ratios * sizes)[:, geometry.levels]
    return centers[:, :, None] * ratios[:, None]


def _flatten(maps: Sequence[Tensor]) -> Tensor:
    """Concatenate maps (N, C, H_l, W_l) as (N, S, C)."""
    return torch.cat([x.flatten(2) for x in maps], dim=2).transpose(1, 2)
