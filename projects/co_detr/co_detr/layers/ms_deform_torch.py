"""Sampling of deformable attention and its gradients in PyTorch: bags of rows of a table.

The maps of a head, each within a border of zeros, are one table of cells. A query sums the rows at
the corners of all its points: `embedding_bag` does it without the sampled values in memory, and on
a CPU in a tenth of the time of `grid_sample`. Transposed (what each cell gets from the queries), it
is a bag as well, once the points are sorted by their cells: no atomics, the same bits twice.

Shape letters: as in `ms_deform_attn`; K = L * P points, B heads of images together in a chunk,
R = B * Q.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Shapes = Sequence[tuple[int, int]]

# Corners of a cell as (row, column), in the order of all that has four of them.
_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
# Points in a chunk, and numbers gathered at once: a cache's worth on a CPU.
_POINTS = {"cpu": 1 << 18, "cuda": 1 << 21}
_GATHERED = {"cpu": 1 << 19, "cuda": 1 << 25}


def sample(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Arguments and result as of `ms_deform_sample`, float32 or float64."""
    n, q, m, _, _ = weights.shape
    out = value.new_zeros((n, q, m, value.shape[3]))
    for chunk in _chunks(weights):
        table = _table(value[chunk], shapes)
        points = _locate(locations[chunk], weights[chunk], shapes)
        sums = F.embedding_bag(
            points.corners, table.flatten(0, 1), per_sample_weights=points.parts, mode="sum"
        )
        out[chunk] = _queries(sums, out[chunk])
    return out.flatten(2)


def sample_backward(
    upstream: Tensor, value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights, from that of the result (N, Q, M * D)."""
    upstream = upstream.unflatten(2, value.shape[2:])
    gradients = [torch.zeros_like(x) for x in (value, locations, weights)]
    by_value, by_location, by_weight = gradients
    for chunk in _chunks(weights):
        table = _table(value[chunk], shapes)
        points = _locate(locations[chunk], weights[chunk], shapes)
        arriving = _heads_first(upstream[chunk]).flatten(0, 1)
        dots = _dots(arriving, table.flatten(0, 1), points.corners)
        for whole, part in zip(
            (by_location, by_weight), _point_gradients(dots, points, shapes), strict=True
        ):
            whole[chunk] = _queries(part, whole[chunk])
        cells = _cell_gradients(arriving, points, shapes, len(table))
        by_value[chunk] = _queries(cells, by_value[chunk])
    return by_value, by_location, by_weight


class _Points(NamedTuple):
    """The points of a chunk and the cells around them.

    Attributes:
        pixels: (R, K, 2) where they are as (x, y), 0 at the center of the first cell, clamped to
            where there is something to see.
        fractions: (R, K, 2) of the way from one corner to the next.
        weights: (R, K).
        corners: (R, 4 * K) int32 rows of the table.
        parts: (R, 4 * K) of each corner in the sum.
    """

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
    sizes = locations.new_tensor(shapes).flip(-1).repeat_interleave(p, dim=0)
    # From a cell outside on everything is 0, so that cells within the border are all it takes.
    pixels = (locations * sizes - 0.5).clamp_(min=-1).minimum(sizes)
    corner = pixels.floor().minimum(sizes - 1)
    fractions = pixels - corner
    starts, total = _starts(shapes)
    widths = torch.tensor([w + 2 for _, w in shapes], dtype=torch.int32, device=weights.device)
    starts = torch.tensor(starts, dtype=torch.int32, device=weights.device)
    widths, starts = widths.repeat_interleave(p), starts.repeat_interleave(p)
    x, y = corner.int().clamp_(min=-1).unbind(-1)  # NaN is any integer
    first = (y + 1) * widths + (x + 1) + starts
    table = torch.arange(b, dtype=torch.int32, device=weights.device) * total
    first += table.repeat_interleave(q)[:, None]
    steps = torch.stack([row * widths + column for row, column in _CORNERS])
    return _Points(
        pixels=pixels,
        fractions=fractions,
        weights=weights,
        corners=(first[:, None] + steps).flatten(1),
        parts=_parts(weights, fractions),
    )


def _parts(weights: Tensor, fractions: Tensor) -> Tensor:
    """Weight of a point times that of each corner, (R, 4 * K)."""
    x, y = fractions.unbind(-1)
    parts = weights.new_empty((len(weights), 4, weights.shape[1]))
    right = weights * x
    left = weights - right
    torch.mul(left, y, out=parts[:, 2])
    torch.mul(right, y, out=parts[:, 3])
    torch.sub(left, parts[:, 2], out=parts[:, 0])
    torch.sub(right, parts[:, 3], out=parts[:, 1])
    return parts.flatten(1)


def _dots(arriving: Tensor, table: Tensor, corners: Tensor) -> Tensor:
    """Product of each query's arriving gradient (R, D) with the rows at its corners, (R, 4 * K)."""
    dots = arriving.new_empty(corners.shape)
    step = max(1, _limit(_GATHERED, table) // (corners.shape[1] * table.shape[1]))
    for start in range(0, len(dots), step):
        part = slice(start, start + step)
        rows = table.index_select(0, corners[part].flatten())
        rows = rows.unflatten(0, (-1, corners.shape[1]))
        # What is written to `out` is not cast by autocast.
        torch.bmm(arriving[part, None], rows.transpose(1, 2), out=dots[part, None])
    return dots


def _point_gradients(dots: Tensor, points: _Points, shapes: Shapes) -> tuple[Tensor, Tensor]:
    """Gradients of the locations (R, K, 2) and weights (R, K)."""
    x, y = points.fractions.unbind(-1)
    top_left, top_right, bottom_left, bottom_right = dots.unflatten(1, (4, -1)).unbind(1)
    top_slope, bottom_slope = top_right - top_left, bottom_right - bottom_left
    top = top_left + x * top_slope
    down = bottom_left + x * bottom_slope - top
    across = top_slope + y * (bottom_slope - top_slope)
    sizes = dots.new_tensor(shapes).flip(-1)
    sizes = sizes.repeat_interleave(dots.shape[1] // (4 * len(shapes)), dim=0)
    moving = (points.pixels > -1) & (points.pixels < sizes)
    slopes = torch.stack([across, down], dim=-1) * points.weights[..., None]
    return slopes * sizes * moving, top + y * down


def _cell_gradients(arriving: Tensor, points: _Points, shapes: Shapes, tables: int) -> Tensor:
    """Gradient of the values, (B * S, D)."""
    starts, total = _starts(shapes)
    k = points.weights.shape[1]
    cells, order = points.corners[:, :k].flatten().sort(stable=True)
    query = (order // k).int()
    every = torch.arange(tables * total, dtype=torch.int32, device=cells.device)
    begin = torch.searchsorted(cells, every, out_int32=True)
    levels = [arriving.new_zeros((tables, h, w, arriving.shape[1])) for h, w in shapes]
    for number, (row, column) in enumerate(_CORNERS):
        part = points.parts[:, number * k : (number + 1) * k].flatten().index_select(0, order)
        sums = F.embedding_bag(query, arriving, begin, per_sample_weights=part, mode="sum")
        sums = sums.unflatten(0, (tables, total))
        for level, (height, width), start in zip(levels, shapes, starts, strict=True):
            padded = sums[:, start : start + (height + 2) * (width + 2)]
            padded = padded.unflatten(1, (height + 2, width + 2))
            level += padded[:, 1 - row :, 1 - column :][:, :height, :width]
    return torch.cat([level.flatten(1, 2) for level in levels], dim=1).flatten(0, 1)


def _table(value: Tensor, shapes: Shapes) -> Tensor:
    """(n, S, m, D) to (n * m, cells, D), each level within a border of zeros."""
    starts, total = _starts(shapes)
    value = _heads_first(value)
    table = value.new_zeros((len(value), total, value.shape[2]))
    parts = value.split([h * w for h, w in shapes], dim=1)
    for part, (height, width), start in zip(parts, shapes, starts, strict=True):
        padded = table[:, start : start + (height + 2) * (width + 2)]
        padded = padded.unflatten(1, (height + 2, width + 2))
        padded[:, 1:-1, 1:-1] = part.unflatten(1, (height, width))
    return table


def _starts(shapes: Shapes) -> tuple[list[int], int]:
    """Where each level begins in a table, and the cells of all."""
    starts, total = [], 0
    for height, width in shapes:
        starts.append(total)
        total += (height + 2) * (width + 2)
    return starts, total


def _chunks(weights: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Images or heads of one, as indices of (N, any, M, ...), with few enough points."""
    n, q, m, levels, points = weights.shape
    if not weights.numel():
        return
    together = max(1, _limit(_POINTS, weights) // (q * levels * points))
    images, heads = max(1, together // m), min(together, m)
    for image in range(0, n, images):
        for head in range(0, m, heads):
            yield slice(image, image + images), slice(None), slice(head, head + heads)


def _limit(limits: dict[str, int], tensor: Tensor) -> int:
    return limits.get(tensor.device.type, limits["cuda"])


def _heads_first(x: Tensor) -> Tensor:
    """(n, Q, m, ...) to (n * m, Q, ...)."""
    return x.transpose(1, 2).flatten(0, 1)


def _queries(x: Tensor, like: Tensor) -> Tensor:
    """(n * m * Q, ...) to (n, Q, m, ...), as `like` is."""
    n, q, m = like.shape[:3]
    return x.reshape(n, m, q, *like.shape[3:]).transpose(1, 2)
