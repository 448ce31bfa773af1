"""Multi-scale deformable sampling by its definition, and random inputs for it."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Problem(NamedTuple):
    value: Tensor
    shapes: tuple[tuple[int, int], ...]
    locations: Tensor
    weights: Tensor

    def to(self, *args) -> "Problem":
        return Problem(*(x.to(*args) if isinstance(x, Tensor) else x for x in self))


SHAPES = ((5, 7), (3, 4), (1, 1))


def random_problem(
    n: int = 2,
    shapes: tuple[tuple[int, int], ...] = SHAPES,
    queries: int = 6,
    heads: int = 3,
    channels: int = 5,
    points: int = 2,
    *,
    seed: int = 0,
) -> Problem:
    """Input in float64, with locations inside the levels, around their edges and far away."""
    g = torch.Generator().manual_seed(seed)
    cells = sum(h * w for h, w in shapes)
    value = torch.randn(n, cells, heads, channels, generator=g, dtype=torch.float64)
    shape = (n, queries, heads, len(shapes), points)
    locations = torch.rand(*shape, 2, generator=g, dtype=torch.float64) * 1.8 - 0.4
    locations[:, -1:] *= 1e3
    return Problem(value, shapes, locations, torch.randn(*shape, generator=g, dtype=torch.float64))


def by_loops(problem: Problem) -> Tensor:
    """Sample point by point, by the definition of bilinear interpolation."""
    value, shapes, locations, weights = problem
    n, queries, heads, _, points = weights.shape
    out = value.new_zeros(n, queries, heads, value.shape[3])
    levels = value.split([h * w for h, w in shapes], dim=1)
    for i, q, m in torch.cartesian_prod(*map(torch.arange, (n, queries, heads))).tolist():
        for level, (height, width) in enumerate(shapes):
            cells = levels[level][i, :, m].unflatten(0, (height, width))
            for p in range(points):
                x, y = locations[i, q, m, level, p] * locations.new_tensor([width, height]) - 0.5
                column, row = math.floor(x), math.floor(y)
                for v in (row, row + 1):
                    for u in (column, column + 1):
                        if 0 <= v < height and 0 <= u < width:
                            share = (1 - (x - u).abs()) * (1 - (y - v).abs())
                            out[i, q, m] += weights[i, q, m, level, p] * share * cells[v, u]
    return out.flatten(2)


def by_grid_sample(problem: Problem) -> Tensor:
    """Sample as the published models do on a CPU."""
    value, shapes, locations, weights = problem
    n, _, m, d = value.shape
    sampled = []
    for level, cells in enumerate(value.split([h * w for h, w in shapes], dim=1)):
        maps = cells.flatten(2).transpose(1, 2).reshape(n * m, d, *shapes[level])
        grid = (2 * locations[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
        sampled.append(F.grid_sample(maps, grid, align_corners=False))
    weights = weights.transpose(1, 2).flatten(3).flatten(0, 1)
    out = (torch.cat(sampled, dim=-1) * weights[:, None]).sum(-1)
    return out.unflatten(0, (n, m)).flatten(1, 2).transpose(1, 2)


def values_and_gradients(function, problem: Problem) -> list[Tensor]:
    """Result of `function`, and the gradients of value, locations and weights."""
    leaves = [x.clone().requires_grad_() for x in problem if isinstance(x, Tensor)]
    out = function(Problem(leaves[0], problem.shapes, *leaves[1:]))
    g = torch.Generator().manual_seed(1)
    upstream = torch.randn(out.shape, generator=g, dtype=torch.float64).to(out)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]
