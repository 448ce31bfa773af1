"""Multi-scale deformable attention (Zhu et al., ICLR 2021, equation 3).

`MSDeformAttn` is the module, `ms_deform_sample` its sampling: a custom operator with two back-ends,
`ms_deform_torch` and `ms_deform_triton`. The autograd graph keeps the three tensors that go in and
nothing else, since the backward pass samples again; `torch.compile` sees a single node.

Shape letters: N images, Q queries, S cells of all levels, M heads, D channels per head, L levels,
P points per head and level.
"""

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from brloss_d2.ops.triton.launch import check_triton, has_triton
from brloss_d2.projects.co_detr.layers import ms_deform_gather, ms_deform_torch
from brloss_d2.projects.co_detr.layers.geometry import FeatureGeometry, Shapes

Backend = Literal["auto", "torch", "triton"]

# Devices for which "auto" takes Triton: none until the kernels have been run on a GPU.
_TRITON_DEVICES: frozenset[str] = frozenset()


class MSDeformAttn(nn.Module):
    """Deformable attention over several feature levels, with its residual sum.

    Args:
        dim: channels C, a multiple of `num_heads`.
        num_heads: number of heads M.
        num_levels: number of feature levels L.
        num_points: number of points P that each head samples per level.
    """

    def __init__(self, dim: int, num_heads: int, num_levels: int, num_points: int) -> None:
        super().__init__()
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(dim, samples * 2)
        self.attention_weights = nn.Linear(dim, samples)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Let each head sample along its own ray, with equal weights at all points."""
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        # The points of a ray are 1, 2, ... cells away (maximum norm).
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
        """Add to each query the values sampled around its reference.

        Args:
            query: (N, Q, C) features.
            query_pos: (N, Q, C) positions, added to the queries that predict offsets and weights,
                but not to the result.
            value: (N, S, C) features to sample; padded cells are zeros after their projection.
            references: (N, Q, L, 2) points (x, y) or (N, Q, L, 4) boxes (cxcywh), normalized by the
                padded size of each level. Offsets are in cells around points, and in half widths
                and heights over `num_points` around boxes.
            geometry: shapes and padding of the levels.

        Returns:
            (N, Q, C) sum of query and attention.
        """
        located = query + query_pos
        heads = (self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(located).unflatten(-1, (*heads, 2))
        logits = self.attention_weights(located).unflatten(-1, (self.num_heads, -1))
        weights = logits.softmax(-1).unflatten(-1, heads[1:])
        values = self.value_proj(value).masked_fill(geometry.padding[..., None], 0.0)
        values = values.unflatten(-1, (self.num_heads, -1))
        locations = sampling_locations(references, offsets, geometry.shapes)
        return query + self.output_proj(
            ms_deform_sample(values, geometry.shapes, locations, weights)
        )


def sampling_locations(references: Tensor, offsets: Tensor, shapes: Shapes) -> Tensor:
    """Add offsets (N, Q, M, L, P, 2) to references, both as in `MSDeformAttn.forward`.

    Returns:
        (N, Q, M, L, P, 2) locations (x, y) normalized by the padded size of each level, in float32
        or finer: half precision has no odd sizes above 256.
    """
    references = references[:, :, None, :, None]
    offsets = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
    if references.shape[-1] == 2:
        sizes = offsets.new_tensor(shapes).flip(-1)  # (width, height)
        return references + offsets / sizes[:, None]
    centers, sizes = references.split(2, dim=-1)
    return centers + offsets / offsets.shape[-2] * sizes * 0.5


def ms_deform_sample(
    value: Tensor,
    shapes: Shapes,
    locations: Tensor,
    weights: Tensor,
    backend: Backend = "auto",
) -> Tensor:
    """Sum values that are interpolated bilinearly at weighted points of each level.

    Computed in float32 or finer, under autocast too. With Triton the last digits of the gradient of
    `value` may differ from run to run.

    Args:
        value: (N, S, M, D) values of the cells, level by level, row by row; zeros outside a level.
        shapes: (H, W) per level, in cells.
        locations: (N, Q, M, L, P, 2) points (x, y), normalized: 0 and 1 are the edges of a level.
        weights: (N, Q, M, L, P) weights of the points.
        backend: "torch", "triton" (GPU tensors only) or "auto", which takes PyTorch so far.

    Returns:
        (N, Q, M * D) sums, heads concatenated, in the dtype of `value`.

    Raises:
        ValueError: `backend` is none of these, or the shapes do not fit.
        RuntimeError: Triton was asked for and cannot run on the device of `value`.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    n, s, m, _ = value.shape
    cells = sum(h * w for h, w in shapes)
    expected = (n, weights.shape[1], m, len(shapes), weights.shape[-1])
    if s != cells or weights.shape != expected or locations.shape != (*expected, 2):
        raise ValueError(
            f"levels {list(shapes)} ask for value (N, {cells}, M, D), weights (N, Q, M, "
            f"{len(shapes)}, P) and locations of the same shape and 2, got {tuple(value.shape)}, "
            f"{tuple(weights.shape)} and {tuple(locations.shape)}"
        )
    dtype = torch.promote_types(value.dtype, torch.float32)
    tensors = [x.to(dtype).contiguous() for x in (value, locations, weights)]
    if torch.jit.is_tracing():  # a graph for other programs, which have no such operator
        return ms_deform_gather.sample(tensors[0], shapes, *tensors[1:]).to(value.dtype)
    flat = [size for shape in shapes for size in shape]
    return _sample(*tensors, flat, backend).to(value.dtype)


def _implementation(backend: str, device: torch.device) -> ModuleType:
    if backend == "triton":
        check_triton(device)
    if backend == "triton" or (
        backend == "auto" and device.type in _TRITON_DEVICES and has_triton()
    ):
        from brloss_d2.projects.co_detr.layers import ms_deform_triton

        return ms_deform_triton
    return ms_deform_torch


def _pairs(flat: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(flat[0::2], flat[1::2], strict=True))


@torch.library.custom_op("brloss_d2::ms_deform_sample", mutates_args=())
def _sample(
    value: Tensor, locations: Tensor, weights: Tensor, shapes: Sequence[int], backend: str
) -> Tensor:
    implementation = _implementation(backend, value.device)
    return implementation.sample(value, _pairs(shapes), locations, weights)


@_sample.register_fake
def _(
    value: Tensor, locations: Tensor, weights: Tensor, shapes: Sequence[int], backend: str
) -> Tensor:
    n, q, m = weights.shape[:3]
    return value.new_empty((n, q, m * value.shape[3]))


@torch.library.custom_op("brloss_d2::ms_deform_sample_backward", mutates_args=())
def _sample_backward(
    upstream: Tensor,
    value: Tensor,
    locations: Tensor,
    weights: Tensor,
    shapes: Sequence[int],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    implementation = _implementation(backend, value.device)
    return implementation.sample_backward(upstream, value, _pairs(shapes), locations, weights)


@_sample_backward.register_fake
def _(upstream: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x) for x in inputs[:3])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.shapes, ctx.backend = inputs[3:]


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    upstream = upstream.contiguous()
    gradients = _sample_backward(upstream, *ctx.saved_tensors, ctx.shapes, ctx.backend)
    return (*gradients, None, None)


_sample.register_autograd(_backward, setup_context=_setup_context)
