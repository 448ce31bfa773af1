"""Multi-scale deformable attention (Zhu et al., ICLR 2021, equation 3).

Shape letters: N images, Q queries, S cells of all levels, M heads, D channels of a head, L levels,
P points.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from brloss_d2.projects.co_detr.layers.ms_deform_sampling import ms_deform_sample
from brloss_d2.projects.co_detr.modeling.geometry import FeatureGeometry

__all__ = ["MSDeformAttn", "ms_deform_sample"]


class MSDeformAttn(nn.Module):
    """Deformable attention over several feature levels, with its residual sum.

    Args:
        dim: channels, a multiple of `num_heads`.
        num_heads: M.
        num_levels: L.
        num_points: P, sampled at each level by each head.
    """

    def __init__(self, dim: int, num_heads: int, num_levels: int, num_points: int):
        super().__init__()
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(dim, samples * 2)
        self.attention_weights = nn.Linear(dim, samples)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        # The points of a head lie on a ray of its own, at 1, 2, ... cells (maximum norm).
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        rays = torch.stack([angles.cos(), angles.sin()], dim=-1)
        rays = rays / rays.abs().amax(-1, keepdim=True)
        radii = torch.arange(1, self.num_points + 1)
        rays = rays[:, None, None] * radii[:, None]
        with torch.no_grad():
            bias = rays.expand(-1, self.num_levels, -1, -1).flatten()
            self.sampling_offsets.bias.copy_(bias)

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        value: Tensor,
        references: Tensor,
        geometry: FeatureGeometry,
    ) -> Tensor:
        """Add to each query (N, Q, C) what it finds near its reference.

        Args:
            query_pos: (N, Q, C), added where offsets and weights are made, not to the result.
            value: (N, S, C); padded cells count as zeros after their projection.
            references: (N, Q, L, 2) points (x, y), or (N, Q, L, 4) boxes as center, width and
                height, both normalized by the padded size of each level. Offsets are in cells
                around points, in half widths and heights over `num_points` around boxes.
            geometry: of the levels.

        Returns:
            (N, Q, C): query + attention.
        """
        shapes = geometry.shapes
        located = query + query_pos
        heads = (self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(located).unflatten(-1, (*heads, 2))
        logits = self.attention_weights(located).unflatten(-1, (self.num_heads, -1))
        weights = logits.softmax(-1).unflatten(-1, heads[1:])
        values = self.value_proj(value).masked_fill(geometry.padding[..., None], 0.0)
        values = values.unflatten(-1, (self.num_heads, -1))
        locations = _locations(references, offsets, shapes)
        return query + self.output_proj(ms_deform_sample(values, shapes, locations, weights))


def _locations(references: Tensor, offsets: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
    """Sampling locations (N, Q, M, L, P, 2); references (N, Q, L, 2 or 4)."""
    references = references[:, :, None, :, None]
    # Half precision knows no odd size above 256.
    offsets = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
    if references.shape[-1] == 2:
        # Sizes of the levels as (width, height).
        sizes = offsets.new_tensor(shapes).flip(-1)
        return references + offsets / sizes[:, None]
    centers, sizes = references.split(2, dim=-1)
    return centers + offsets / offsets.shape[-2] * sizes * 0.5
