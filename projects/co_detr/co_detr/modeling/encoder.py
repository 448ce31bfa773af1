"""The encoder of Deformable DETR (Zhu et al., ICLR 2021)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from brloss_d2.projects.co_detr.layers.position import sine_map
from brloss_d2.projects.co_detr.layers.transformer import EncoderLayer
from brloss_d2.projects.co_detr.modeling.geometry import FeatureGeometry


class DeformableEncoder(nn.Module):
    """Layers of deformable attention between the cells of all levels.

    Args:
        dim: C, channels of the maps.
        num_heads, num_levels, num_points: of the attention.
        num_layers: how many layers.
        ffn_dim: hidden channels of each layer's FFN.
        temperature, offset: of the sine encoding, see `sine_map`.
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
    ):
        super().__init__()
        self.temperature, self.offset = temperature, offset
        self.level_embed = nn.Parameter(torch.randn(num_levels, dim))
        self.layers = nn.ModuleList(
            EncoderLayer(dim, num_heads, num_levels, num_points, ffn_dim) for _ in range(num_layers)
        )

    def forward(self, features: Sequence[Tensor], geometry: FeatureGeometry) -> Tensor:
        """Encode maps (N, C, H_l, W_l) as the memory (N, S, C), level by level, rows first.

        Padded cells are encoded like others; no attention reads them.
        """
        x = _flatten(features)
        position = self._positions(geometry)
        references = cell_references(geometry)
        for layer in self.layers:
            x = layer(x, position, references, geometry)
        return x

    def _positions(self, geometry: FeatureGeometry) -> Tensor:
        """(N, S, C): where a cell lies in its image, and on which level."""
        dim = self.level_embed.shape[1] // 2
        sines = [sine_map(mask, dim, self.temperature, self.offset) for mask in geometry.masks]
        levels = self.level_embed[:, :, None, None]
        return _flatten([sine + level for sine, level in zip(sines, levels, strict=True)])


def cell_references(geometry: FeatureGeometry) -> Tensor:
    """Center of each cell, normalized by the padded size of each level, (N, S, L, 2) as (x, y)."""
    ratios = geometry.valid_ratios
    centers = []
    for level, (height, width) in enumerate(geometry.shapes):
        y = torch.arange(height, device=ratios.device) + 0.5
        x = torch.arange(width, device=ratios.device) + 0.5
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)
        covered = ratios[:, None, level] * ratios.new_tensor([width, height])
        centers.append(grid / covered)
    return torch.cat(centers, dim=1)[:, :, None] * ratios[:, None]


def _flatten(maps: Sequence[Tensor]) -> Tensor:
    return torch.cat([x.flatten(2) for x in maps], dim=2).transpose(1, 2)
