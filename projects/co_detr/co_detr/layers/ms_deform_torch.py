"""Sampling of deformable attention and its gradients in PyTorch, as bags of table rows.

The maps of a head, each within a border of zeros, form one table of cells. A query sums the rows at
the corners of all its points: `embedding_bag` does so without storing the sampled values, and on a
CPU in a tenth of the time of `grid_sample`. The transpose (the gradient of each cell from all
queries) is a bag too, once the points are sorted by cell: no atomics, hence the same bits twice.

Shape letters: as in `ms_deform_attn`; also K = L * P points, B heads of images in a chunk,
R = B * Q.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from brloss_d2.projects.co_detr.layers.geometry import Shapes
from brloss_d2.utils.devices import constant

# Corners of a cell as (row, column), in the order of every tensor that has four of them.
_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
# Points per chunk, and numbers gathered at once: what fits into the cache of a CPU.
_POINTS = {"cpu": 1 << 18, "cuda": 1 << 21}
_GATHERED = {"cpu": 1 << 19, "cuda": 1 << 25}


def sample(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Sample in float32 or float64; arguments and result as in `ms_deform_sample`."""
    n, q, m, _, _ = weights.shape
    out = value.new_zeros((n, q, m, value.shape[3]))
    for chunk in _chunks(weights):
        table = _table(value[chunk], shapes)
        points = _locate(locations[chunk], weights[chunk], shapes)
        sums = F.embedding_bag(
            points.corners, table.flatten(0, 1), per_sample_weights=points.parts, mode="sum"
        )
        out[chunk] = _queries_first(sums, out[chunk])
    return out.flatten(2)


def sample_backward(
    upstream: Tensor, value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of value, locations and weights from that of the sums."""
    upstream = upstream.unflatten(2, value.shape[2:])
    grad_value, grad_locations, grad_weights = (
        torch.zeros_like(x) for x in (value, locations, weights)
    )
    for chunk in _chunks(weights):
        table = _table(value[chunk], shapes)
        points = _locate(locations[chunk], weights[chunk], shapes)
        grad_sums = _heads_first(upstream[chunk]).flatten(0, 1)
        at, weight = _point_gradients(grad_sums, table.flatten(0, 1), points)
        grad_locations[chunk] = _queries_first(at, grad_locations[chunk])
        grad_weights[chunk] = _queries_first(weight, grad_weights[chunk])
        cells = _cell_gradients(grad_sums, points, shapes, len(table))
        grad_value[chunk] = _queries_first(cells, grad_value[chunk])
    return grad_value, grad_locations, grad_weights


class _Points(NamedTuple):
    """Points of a chunk and the cells around them.

    Attributes:
        sizes: (K, 2) width and height of the level of each point, in cells.
        pixels: (R, K, 2) positions (x, y) in cells, 0 at the center of the first cell, clamped to
            the border of zeros.
        fractions: (R, K, 2) positions between the corners in x and y, in [0, 1].
        weights: (R, K) weights of the points.
        corners: (R, 4 * K) int32 rows of the table.
        parts: (R, 4 * K) weights of the corners in the sum.
    """

    sizes: Tensor
    pixels: Tensor
    fractions: Tensor
    weights: Tensor
    corners: Tensor
    parts: Tensor


def _locate(locations: Tensor, weights: Tensor, shapes: Shapes) -> _Points:
    """Find the corners around the points of a chunk, (n, Q, m, L, P, 2) and (n, Q, m, L, P)."""
    locations, weights = (_heads_first(x) for x in (locations, weights))
    b, q, _, p = weights.shape
    locations, weights = locations.reshape(b * q, -1, 2), weights.reshape(b * q, -1)
    levels = [shape for shape in shapes for _ in range(p)]
    sizes = constant(tuple(x for shape in levels for x in shape[::-1]), locations).view(-1, 2)
    # Values are 0 from one cell outside on, so that cells within the border suffice.
    pixels = (locations * sizes - 0.5).clamp_(min=-1).minimum(sizes)
    corner = pixels.floor().minimum(sizes - 1)
    fractions = pixels - corner
    x, y = corner.int().clamp_(min=-1).unbind(-1)  # NaN becomes an arbitrary integer
    rows = _level_rows(shapes)
    starts = [sum(rows[:level]) for level in range(len(shapes)) for _ in range(p)]
    steps = [
        start + (1 + row) * (width + 2) + 1 + column
        for row, column in _CORNERS
        for start, (_, width) in zip(starts, levels, strict=True)
    ]
    first = (y * constant(tuple(width + 2 for _, width in levels), y)).add_(x)
    tables = torch.arange(0, b * sum(rows), sum(rows), dtype=x.dtype, device=x.device)
    first.view(b, q, -1).add_(tables[:, None, None])
    corners = (first[:, None] + constant(tuple(steps), first).view(4, -1)).flatten(1)
    return _Points(sizes, pixels, fractions, weights, corners, _parts(weights, fractions))


def _parts(weights: Tensor, fractions: Tensor) -> Tensor:
    """Split the weight of each point between its corners, (R, 4 * K)."""
    x, y = fractions.unbind(-1)
    parts = weights.new_empty((len(weights), 4, weights.shape[1]))
    right = weights * x
    left = weights - right
    torch.mul(left, y, out=parts[:, 2])
    torch.mul(right, y, out=parts[:, 3])
    torch.sub(left, parts[:, 2], out=parts[:, 0])
    torch.sub(right, parts[:, 3], out=parts[:, 1])
    return parts.flatten(1)


def _point_gradients(grad_sums: Tensor, table: Tensor, points: _Points) -> tuple[Tensor, Tensor]:
    """Gradients of the locations (R, K, 2) and weights (R, K) from that of the sums (R, D)."""
    # Product of each query's gradient with the table rows at its corners.
    dots = grad_sums.new_empty(points.corners.shape)
    limit = _GATHERED.get(table.device.type, _GATHERED["cuda"])
    step = max(1, limit // (dots.shape[1] * table.shape[1]))
    for start in range(0, len(dots), step):
        part = slice(start, start + step)
        rows = table.index_select(0, points.corners[part].flatten())
        rows = rows.unflatten(0, (-1, dots.shape[1]))
        # Autocast does not cast what is written to `out`.
        torch.bmm(grad_sums[part, None], rows.transpose(1, 2), out=dots[part, None])
    x, y = points.fractions.unbind(-1)
    top_left, top_right, bottom_left, bottom_right = dots.unflatten(1, (4, -1)).unbind(1)
    top_slope, bottom_slope = top_right - top_left, bottom_right - bottom_left
    top = top_left + x * top_slope
    down = bottom_left + x * bottom_slope - top
    across = top_slope + y * (bottom_slope - top_slope)
    moving = (points.pixels > -1) & (points.pixels < points.sizes)
    slopes = torch.stack([across, down], dim=-1) * points.weights[..., None]
    return slopes * points.sizes * moving, top + y * down


def _cell_gradients(grad_sums: Tensor, points: _Points, shapes: Shapes, tables: int) -> Tensor:
    """Gradient of the values (B * S, D) of B tables from that of the sums (R, D)."""
    rows = _level_rows(shapes)
    k = points.weights.shape[1]
    cells, order = points.corners[:, :k].flatten().sort(stable=True)
    query = (order // k).int()
    every = torch.arange(tables * sum(rows), dtype=torch.int32, device=cells.device)
    begin = torch.searchsorted(cells, every, out_int32=True)
    levels = [grad_sums.new_zeros((tables, h, w, grad_sums.shape[1])) for h, w in shapes]
    for number, (row, column) in enumerate(_CORNERS):
        part = points.parts[:, number * k : (number + 1) * k].flatten().index_select(0, order)
        sums = F.embedding_bag(query, grad_sums, begin, per_sample_weights=part, mode="sum")
        parts = sums.unflatten(0, (tables, -1)).split(rows, dim=1)
        for level, padded, (height, width) in zip(levels, parts, shapes, strict=True):
            padded = padded.unflatten(1, (height + 2, width + 2))
            level += padded[:, 1 - row :, 1 - column :][:, :height, :width]
    return torch.cat([level.flatten(1, 2) for level in levels], dim=1).flatten(0, 1)


def _table(value: Tensor, shapes: Shapes) -> Tensor:
    """Rearrange (n, S, m, D) to (n * m, cells, D), each level within a border of zeros."""
    rows, value = _level_rows(shapes), _heads_first(value)
    table = value.new_zeros((len(value), sum(rows), value.shape[2]))
    maps = value.split([height * width for height, width in shapes], dim=1)
    for padded, cells, (height, width) in zip(table.split(rows, 1), maps, shapes, strict=True):
        padded = padded.unflatten(1, (height + 2, width + 2))
        padded[:, 1:-1, 1:-1] = cells.unflatten(1, (height, width))
    return table


def _level_rows(shapes: Shapes) -> list[int]:
    """Number of table rows per level, border included."""
    return [(height + 2) * (width + 2) for height, width in shapes]


def _chunks(weights: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Indices of (N, any, M, ...): several images, or heads of one, with few enough points."""
    n, q, m, levels, points = weights.shape
    if not weights.numel():
        return
    limit = _POINTS.get(weights.device.type, _POINTS["cuda"])
    together = max(1, limit // (q * levels * points))
    images, heads = max(1, together // m), min(together, m)
    for image in range(0, n, images):
        for head in range(0, m, heads):
            yield slice(image, image + images), slice(None), slice(head, head + heads)


def _heads_first(x: Tensor) -> Tensor:
    """Rearrange (n, Q, m, ...) to (n * m, Q, ...)."""
    return x.transpose(1, 2).flatten(0, 1)


def _queries_first(x: Tensor, like: Tensor) -> Tensor:
    """Rearrange (n * m * Q, ...) to (n, Q, m, ...), the shape of `like`."""
    n, q, m = like.shape[:3]
    return x.reshape(n, m, q, *like.shape[3:]).transpose(1, 2)
