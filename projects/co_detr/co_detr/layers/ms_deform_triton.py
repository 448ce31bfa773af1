"""Sampling of deformable attention and its gradients as Triton kernels.

Each program handles one head of a block of queries, with all their points. The gradients of
locations and weights have one writer per element; that of the values is summed atomically, so that
its last digits may differ from run to run.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from brloss_d2.ops.triton.launch import current_device
from brloss_d2.projects.co_detr.layers.geometry import Shapes

_QUERIES = 32


@triton.jit
def _point(locations, weights, levels, at, level, known, dtype: tl.constexpr):
    """Corner, fractions of a cell from it (x and y), weight; size and first cell of the level."""
    height, width = tl.load(levels + level * 3), tl.load(levels + level * 3 + 1)
    x = tl.load(locations + at * 2, mask=known, other=-1.0) * width.to(dtype) - 0.5
    y = tl.load(locations + at * 2 + 1, mask=known, other=-1.0) * height.to(dtype) - 0.5
    weight = tl.load(weights + at, mask=known, other=0.0)
    # NaN counts as seen, so that it shows in the sum.
    seen = known & ~((x <= -1) | (x >= width) | (y <= -1) | (y >= height))
    left, top = tl.floor(x), tl.floor(y)
    first = tl.load(levels + level * 3 + 2)
    return left, top, x - left, y - top, weight, seen, height, width, first


@triton.jit
def _corner(first, top, left, height, width, seen, stride, channel, inside_head):
    """Addresses of the values at a corner, and the mask of those inside the level."""
    inside = seen & (left >= 0) & (left < width) & (top >= 0) & (top < height)
    cell = tl.where(inside, top, 0).to(tl.int64) * width + tl.where(inside, left, 0).to(tl.int64)
    at = (first + cell)[:, None] * stride + channel[None, :]
    return at, inside[:, None] & inside_head[None, :]


@triton.jit
def _sample(
    value,
    locations,
    weights,
    levels,
    out,
    cells,
    queries,
    heads,
    channels,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    QUERIES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write the weighted sum over all points to `out[n, q, m]`."""
    image, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    q = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    known = q < queries
    channel = tl.arange(0, CHANNELS)
    inside_head = channel < channels
    bag = (image * queries + q) * heads + head
    total = tl.zeros([QUERIES, CHANNELS], dtype=value.dtype.element_ty)
    stride = heads * channels
    value += image * cells * stride + head * channels
    for level in range(LEVELS):
        for point in range(POINTS):
            at = (bag * LEVELS + level) * POINTS + point
            left, top, x, y, weight, seen, height, width, first = _point(
                locations, weights, levels, at, level, known, value.dtype.element_ty
            )
            for corner in tl.static_range(4):
                down, right = corner // 2, corner % 2
                where, inside = _corner(
                    first, top + down, left + right, height, width, seen, stride, channel,
                    inside_head,
                )  # fmt: skip
                row = y if down else 1 - y
                column = x if right else 1 - x
                part = tl.where(seen, weight * row * column, 0.0)
                total += part[:, None] * tl.load(value + where, mask=inside, other=0.0)
    tl.store(
        out + bag[:, None] * channels + channel[None, :],
        total,
        mask=known[:, None] & inside_head[None, :],
    )


@triton.jit
def _differentiate(
    value,
    locations,
    weights,
    levels,
    upstream,
    by_value,
    by_location,
    by_weight,
    cells,
    queries,
    heads,
    channels,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    QUERIES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write the gradients of values, locations and weights, from that of `out`."""
    image, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    q = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    known = q < queries
    channel = tl.arange(0, CHANNELS)
    inside_head = channel < channels
    bag = (image * queries + q) * heads + head
    arriving = tl.load(
        upstream + bag[:, None] * channels + channel[None, :],
        mask=known[:, None] & inside_head[None, :],
        other=0.0,
    )
    stride = heads * channels
    value += image * cells * stride + head * channels
    by_value += image * cells * stride + head * channels
    for level in range(LEVELS):
        for point in range(POINTS):
            at = (bag * LEVELS + level) * POINTS + point
            left, top, x, y, weight, seen, height, width, first = _point(
                locations, weights, levels, at, level, known, value.dtype.element_ty
            )
            along_x = tl.zeros_like(x)
            along_y = tl.zeros_like(x)
            along_weight = tl.zeros_like(x)
            for corner in tl.static_range(4):
                down, right = corner // 2, corner % 2
                where, inside = _corner(
                    first, top + down, left + right, height, width, seen, stride, channel,
                    inside_head,
                )  # fmt: skip
                row = y if down else 1 - y
                column = x if right else 1 - x
                found = tl.load(value + where, mask=inside, other=0.0)
                dot = tl.sum(found * arriving, axis=1)
                along_weight += row * column * dot
                along_x += row * dot * (1 if right else -1)
                along_y += column * dot * (1 if down else -1)
                part = (weight * row * column)[:, None] * arriving
                tl.atomic_add(by_value + where, part, mask=inside, sem="relaxed")
            tl.store(by_weight + at, tl.where(seen, along_weight, 0.0), mask=known)
            by_x, by_y = along_x * weight * width, along_y * weight * height
            tl.store(by_location + at * 2, tl.where(seen, by_x, 0.0), mask=known)
            tl.store(by_location + at * 2 + 1, tl.where(seen, by_y, 0.0), mask=known)


def sample(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Sample in float32 or float64; contiguous arguments and result as in `ms_deform_sample`."""
    n, q, m = weights.shape[:3]
    out = value.new_zeros((n, q, m * value.shape[3]))
    _launch(_sample, value, shapes, locations, weights, out)
    return out


def sample_backward(
    upstream: Tensor, value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of value, locations and weights from that of the sums."""
    gradients = torch.zeros_like(value), torch.empty_like(locations), torch.empty_like(weights)
    _launch(_differentiate, value, shapes, locations, weights, upstream, *gradients)
    return gradients


def _launch(
    kernel: triton.JITFunction,
    value: Tensor,
    shapes: Shapes,
    locations: Tensor,
    weights: Tensor,
    *others: Tensor,
) -> None:
    n, q, m, levels, points = weights.shape
    if not weights.numel():
        return
    channels, cells, rows = value.shape[3], 0, []
    for height, width in shapes:
        rows.append([height, width, cells])
        cells += height * width
    level_rows = torch.tensor(rows, dtype=torch.int32, device=value.device)
    with current_device(weights):
        kernel[(triton.cdiv(q, _QUERIES), n * m)](
            value, locations, weights, level_rows, *others, cells, q, m, channels, LEVELS=levels,
            POINTS=points, QUERIES=_QUERIES, CHANNELS=triton.next_power_of_2(channels),
        )  # fmt: skip
