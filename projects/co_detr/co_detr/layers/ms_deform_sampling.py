"""Sampling of multi-scale deformable attention: an operator of its own, with two back-ends.

The graph holds the three arguments and nothing else; what was sampled is sampled again in the
backward pass. As a custom operator it is one node to `torch.compile`.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from brloss_d2.ops.triton.launch import check_triton, has_triton
from brloss_d2.projects.co_detr.layers import ms_deform_torch

Backend = Literal["auto", "torch", "triton"]

# Where "auto" takes Triton: nowhere until the kernels have been run on a GPU.
_TRITON_DEVICES: frozenset[str] = frozenset()


def ms_deform_sample(
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    backend: Backend = "auto",
) -> Tensor:
    """Weighted sums of values, interpolated bilinearly at points of each level.

    In float32 at least, whatever autocast says. With Triton the last digits of the gradient of
    `value` may differ from run to run.

    Args:
        value: (N, S, M, D), level by level, rows first; outside a level there are zeros.
        shapes: (H, W) of each level, in cells.
        locations: (N, Q, M, L, P, 2) as (x, y), normalized: 0 and 1 are the edges of a level.
        weights: (N, Q, M, L, P).
        backend: "torch", "triton" (GPU tensors only) or "auto", which takes PyTorch so far.

    Returns:
        (N, Q, M * D), heads concatenated, in the dtype of `value`.

    Raises:
        ValueError: another back-end, or shapes that do not fit.
        RuntimeError: Triton was asked for and cannot run there.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    _check_shapes(value, shapes, locations, weights)
    dtype = torch.promote_types(value.dtype, torch.float32)
    tensors = (x.to(dtype).contiguous() for x in (value, locations, weights))
    flat = [size for shape in shapes for size in shape]
    return _sample(*tensors, flat, backend).to(value.dtype)


def _check_shapes(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> None:
    n, s, m, _ = value.shape
    cells = sum(h * w for h, w in shapes)
    expected = (n, weights.shape[1], m, len(shapes), weights.shape[-1])
    if s != cells or weights.shape != expected or locations.shape != (*expected, 2):
        raise ValueError(
            f"levels {list(shapes)} ask for value (N, {cells}, M, D), weights (N, Q, M, "
            f"{len(shapes)}, P) and locations of the same shape and 2, got {tuple(value.shape)}, "
            f"{tuple(weights.shape)} and {tuple(locations.shape)}"
        )


def _implementation(backend: str, device: torch.device) -> Any:
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


_ARGUMENTS = "Tensor value, Tensor locations, Tensor weights, int[] shapes, str backend"


@torch.library.custom_op(
    "brloss_d2::ms_deform_sample", mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor"
)
def _sample(
    value: Tensor, locations: Tensor, weights: Tensor, shapes: Sequence[int], backend: str
) -> Tensor:
    form = _implementation(backend, value.device)
    return form.sample(value, _pairs(shapes), locations, weights)


@_sample.register_fake
def _(value: Tensor, locations: Tensor, weights: Tensor, *_: Any) -> Tensor:
    n, _, m, d = value.shape
    return value.new_empty((n, weights.shape[1], m * d))


@torch.library.custom_op(
    "brloss_d2::ms_deform_sample_backward",
    mutates_args=(),
    schema=f"(Tensor upstream, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
)
def _sample_backward(
    upstream: Tensor,
    value: Tensor,
    locations: Tensor,
    weights: Tensor,
    shapes: Sequence[int],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    form = _implementation(backend, value.device)
    return form.sample_backward(upstream, value, _pairs(shapes), locations, weights)


@_sample_backward.register_fake
def _(_: Tensor, value: Tensor, locations: Tensor, weights: Tensor, *__: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x) for x in (value, locations, weights))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.shapes, ctx.backend = inputs[3:]


def _differentiate(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    upstream = upstream.contiguous()
    gradients = _sample_backward(upstream, *ctx.saved_tensors, ctx.shapes, ctx.backend)
    return (*gradients, None, None)


_sample.register_autograd(_differentiate, setup_context=_save)
