"""Heads of SOLOv2: classes and kernels on grids of cells, and the features of all masks."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, get_norm
from torch import Tensor, nn

from brloss_d2.modeling.one_stage.head import conv_tower, init_conv


def with_coordinates(x: Tensor) -> Tensor:
    """Append two channels with the horizontal and vertical position, from -1 to 1 in the map.

    Args:
        x: (N, C, H, W) feature map.

    Returns:
        (N, C + 2, H, W) feature map.
    """
    height, width = x.shape[-2:]
    columns = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype)
    rows = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype)
    position = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
    return torch.cat([x, position.expand(len(x), -1, -1, -1)], 1)


class GridOutputs(NamedTuple):
    """Outputs of a `GridHead`, a list over the levels for each.

    Attributes:
        logits: (N, K, G, G) class logits per level, G its number of cells per side.
        kernels: (N, E, G, G) kernel of the mask of each cell per level.
    """

    logits: list[Tensor]
    kernels: list[Tensor]


class GridHead(nn.Module):
    """Class scores and a mask kernel for every cell of a grid (SOLOv2, Wang et al., NeurIPS 2020).

    The map of each level is resized to a square of cells whatever its aspect ratio, with the
    position of the cell for the kernels. The finest level is halved before, and the coarsest
    enlarged to the size of the one before it.

    Args:
        in_channels: number of channels of the features.
        num_classes: number of class outputs per cell, K.
        kernel_dim: number of weights of a kernel, E, which is the number of mask features.
        grid_sizes: number of cells per side, per level.
        conv_dims: numbers of channels of the convolutions of a tower.
        norm: normalization of the towers, a name that detectron2's `get_norm` knows; "" is none.
        prior_prob: score at the start of training, in (0, 1).
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        kernel_dim: int,
        grid_sizes: tuple[int, ...] = (40, 36, 24, 16, 12),
        conv_dims: tuple[int, ...] = (512, 512, 512, 512),
        norm: str = "GN",
        prior_prob: float = 0.01,
    ):
        super().__init__()
        self.grid_sizes = tuple(grid_sizes)
        self.cls_tower = conv_tower(in_channels, conv_dims, norm)
        self.kernel_tower = conv_tower(in_channels + 2, conv_dims, norm)
        self.cls_logits = Conv2d(conv_dims[-1], num_classes, 3, padding=1)
        self.kernel_pred = Conv2d(conv_dims[-1], kernel_dim, 3, padding=1)
        self.apply(init_conv)
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - prior_prob) / prior_prob))

    def forward(self, features: list[Tensor]) -> GridOutputs:
        """Predict from feature maps (N, C, H, W), one per level."""
        finest, *middle, coarsest = features
        maps = [
            F.interpolate(finest, scale_factor=0.5, mode="bilinear"),
            *middle,
            F.interpolate(coarsest, size=middle[-1].shape[-2:], mode="bilinear"),
        ]
        logits, kernels = [], []
        for x, size in zip(maps, self.grid_sizes, strict=True):
            cells = F.interpolate(with_coordinates(x), size=(size, size), mode="bilinear")
            logits.append(self.cls_logits(self.cls_tower(cells[:, :-2])))
            kernels.append(self.kernel_pred(self.kernel_tower(cells)))
        return GridOutputs(logits, kernels)


class MaskFeatureHead(nn.Module):
    """Features of which all masks of an image are linear combinations (SOLOv2).

    Every level is brought to the size of the finest one by convolutions, each followed by doubling
    the size; the coarsest has two more channels with the position. The sum of all levels becomes
    the features.

    Args:
        in_channels: number of channels of the feature pyramid.
        out_channels: number of mask features, E.
        conv_dim: number of channels of the convolutions.
        num_levels: number of levels that are used, the finest first.
        norm: normalization, a name that detectron2's `get_norm` knows; "" is none.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        conv_dim: int = 128,
        num_levels: int = 4,
        norm: str = "GN",
    ):
        super().__init__()
        self.levels = nn.ModuleList(
            conv_tower(
                in_channels + (2 if level == num_levels - 1 else 0),
                (conv_dim,) * max(level, 1),
                norm,
            )
            for level in range(num_levels)
        )
        self.output = Conv2d(
            conv_dim,
            out_channels,
            1,
            bias=not norm,
            norm=get_norm(norm, out_channels),
            activation=nn.ReLU(),
        )
        self.apply(init_conv)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Turn feature maps (N, C, H, W), the finest first, into (N, E, H, W) of the finest."""
        maps = list(features[: len(self.levels)])
        maps[-1] = with_coordinates(maps[-1])
        for level, convolutions in enumerate(self.levels):
            for convolution in convolutions.children():
                maps[level] = convolution(maps[level])
                if level > 0:
                    maps[level] = F.interpolate(maps[level], scale_factor=2.0, mode="bilinear")
        return self.output(sum(maps[1:], start=maps[0]))
