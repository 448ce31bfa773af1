"""Head of RetinaNet and its descendants: two towers of convolutions, shared by all levels."""

import math
from typing import NamedTuple

import torch
from detectron2.layers import Conv2d, get_norm
from torch import Tensor, nn


class DenseOutputs(NamedTuple):
    """Outputs of a one-stage head, a list over the levels for each.

    Attributes:
        logits: (N, A K, H, W) class logits per level, channels in the order anchor, class.
        deltas: (N, A 4, H, W) encoded boxes per level.
        quality: (N, A, H, W) quality logits per level; None if the head has no such branch.
    """

    logits: list[Tensor]
    deltas: list[Tensor]
    quality: list[Tensor] | None = None


class Scale(nn.Module):
    """Trainable factor, initially 1."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return `scale * x`."""
        return x * self.scale


class TowerHead(nn.Module):
    """A tower for classes and a tower for boxes, each followed by a 3x3 convolution.

    With normalization the convolutions of the towers have no bias.

    Args:
        in_channels: number of channels of the features.
        num_classes: number of class outputs per anchor, K.
        num_anchors: number of anchors per cell, A.
        conv_dims: numbers of channels of the convolutions of a tower.
        norm: normalization of the towers, a name that detectron2's `get_norm` knows; "" is none.
        num_scaled_levels: number of levels whose box outputs have a trainable factor; 0 is none.
        has_quality: whether a further output predicts the quality of each box; only for criteria
            that train it.
        prior_prob: score at the start of training, in (0, 1).
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        num_anchors: int,
        conv_dims: tuple[int, ...] = (256, 256, 256, 256),
        norm: str = "",
        num_scaled_levels: int = 0,
        has_quality: bool = False,
        prior_prob: float = 0.01,
    ):
        super().__init__()
        self.num_classes, self.has_quality = num_classes, has_quality
        self.cls_tower = conv_tower(in_channels, conv_dims, norm)
        self.box_tower = conv_tower(in_channels, conv_dims, norm)
        width = ([in_channels, *conv_dims])[-1]
        self.cls_logits = Conv2d(width, num_anchors * num_classes, 3, padding=1)
        self.bbox_pred = Conv2d(width, num_anchors * 4, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in range(num_scaled_levels))
        self.apply(init_conv)
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - prior_prob) / prior_prob))
        if has_quality:
            # Last, so that a seed gives all other parameters the values they have without it.
            self.quality = Conv2d(width, num_anchors, 3, padding=1)
            init_conv(self.quality)

    def forward(self, features: list[Tensor]) -> DenseOutputs:
        """Predict from feature maps (N, C, H, W), one per level."""
        logits, deltas, quality = [], [], []
        for level, x in enumerate(features):
            boxes = self.box_tower(x)
            logits.append(self.cls_logits(self.cls_tower(x)))
            box_outputs = self.bbox_pred(boxes)
            deltas.append(self.scales[level](box_outputs) if len(self.scales) else box_outputs)
            if self.has_quality:
                quality.append(self.quality(boxes))
        return DenseOutputs(logits, deltas, quality if self.has_quality else None)


def init_conv(module: nn.Module) -> None:
    """Draw the weights of a convolution from N(0, 0.01) and set its bias to 0."""
    if isinstance(module, Conv2d):
        nn.init.normal_(module.weight, std=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def conv_tower(in_channels: int, conv_dims: tuple[int, ...], norm: str) -> nn.Sequential:
    """Build 3x3 convolutions with ReLU; with normalization they have no bias.

    Args:
        in_channels: number of channels of the input.
        conv_dims: number of channels of each convolution.
        norm: normalization, a name that detectron2's `get_norm` knows; "" is none.
    """
    layers = []
    for out_channels in conv_dims:
        options = dict(bias=not norm, norm=get_norm(norm, out_channels), activation=nn.ReLU())
        layers.append(Conv2d(in_channels, out_channels, 3, padding=1, **options))
        in_channels = out_channels
    return nn.Sequential(*layers)
