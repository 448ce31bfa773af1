"""Sampling of deformable attention by plain gathers, for graphs: ONNX has all of these operators.

Slower than `ms_deform_torch`, and it stores every sampled value. The number of images may vary in a
trace; the sizes of the levels are constants.
"""

import torch
from torch import Tensor

from brloss_d2.projects.co_detr.layers.geometry import Shapes

# Corners of a cell as (column, row).
_CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1))


def sample(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Sample in the dtype of `value`; arguments and result as in `ms_deform_sample`."""
    heads, dim = value.shape[2:]
    value = value.transpose(1, 2)
    # Counted: to the exporter of ONNX the number of images would be a constant.
    image = (weights[:, 0, 0, 0, 0] * 0 + 1).cumsum(0).long() - 1
    head = torch.arange(heads, device=value.device)
    table_of = (image[:, None] * heads + head)[:, None, :, None]
    sums, start = [], 0
    for level, (height, width) in enumerate(shapes):
        table = value[:, :, start : start + height * width].reshape(-1, dim)
        x, y = (locations[:, :, :, level] * value.new_tensor([width, height]) - 0.5).unbind(-1)
        for right, down in _CORNERS:
            column, row = x.floor() + right, y.floor() + down
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            part = (1 - (x - column).abs()) * (1 - (y - row).abs()) * inside
            cell = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            rows = table[cell + table_of * (height * width)]
            sums.append(((part * weights[:, :, :, level])[..., None] * rows).sum(3))
        start += height * width
    return torch.stack(sums).sum(0).flatten(2)
