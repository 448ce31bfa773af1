"""Modulated deformable convolutions (Zhu et al., CVPR 2019) in a ResNet.

With torchvision's operator, which runs on any device; detectron2's needs its compiled extension.
Names and layout of the weights are those of detectron2's `DeformBottleneckBlock`.
"""

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling.backbone.resnet import BottleneckBlock
from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class ModulatedDeformConv2d(Conv2d):
    """detectron2's `Conv2d` (with `norm` and `activation`) at input-dependent positions.

    Each kernel tap of each group of input channels reads the input at an offset of its own, by
    bilinear interpolation, and has a weight of its own. Outside, the input is zero.
    """

    def forward(self, x: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: (N, C, H, W) input.
            offsets: (N, 2 * G * kh * kw, H', W') offsets in pixels of `x`, y before x for each of
                the G offset groups and each tap; H' and W' are the size of the output.
            weights: (N, G * kh * kw, H', W') weights of each offset group and tap.
        """
        # The operator has no half precision on a CPU, and positions need more digits anyway.
        dtype = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            moved = deform_conv2d(
                x.to(dtype),
                offsets.to(dtype),
                self.weight.to(dtype),
                None if self.bias is None else self.bias.to(dtype),
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                mask=weights.to(dtype),
            )
        x = moved.to(x.dtype)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)


class DeformableBottleneckBlock(BottleneckBlock):
    """Bottleneck block whose 3x3 convolution is a modulated deformable one.

    Offsets start at 0 and weights, a sigmoid, at 1/2: with the weights of a plain ResNet the 3x3
    responses are initially half of that network's, as in the published detectors.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        bottleneck_channels: number of channels of the 3x3 convolution.
        stride: stride of the block.
        num_groups: number of groups of the 3x3 convolution.
        norm: normalization after each convolution, as in detectron2's `get_norm`.
        stride_in_1x1: whether the first 1x1 convolution has the stride instead of the 3x3 one.
        dilation: dilation of the 3x3 convolution.
        offset_groups: number of groups of input channels of the 3x3 convolution that have offsets
            and weights of their own.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        offset_groups: int = 1,
        stride: int = 1,
        num_groups: int = 1,
        norm: str = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ):
        super().__init__(
            in_channels,
            out_channels,
            bottleneck_channels=bottleneck_channels,
            stride=stride,
            num_groups=num_groups,
            norm=norm,
            stride_in_1x1=stride_in_1x1,
            dilation=dilation,
        )
        self.conv2: Conv2d
        place = dict(
            kernel_size=3, stride=self.conv2.stride, padding=self.conv2.padding, dilation=dilation
        )
        # All offsets, then all weights.
        self.conv2_offset = Conv2d(bottleneck_channels, 27 * offset_groups, **place)
        nn.init.zeros_(self.conv2_offset.weight)
        nn.init.zeros_(self.conv2_offset.bias)
        self.conv2 = ModulatedDeformConv2d(
            bottleneck_channels,
            bottleneck_channels,
            groups=num_groups,
            bias=False,
            norm=get_norm(norm, bottleneck_channels),
            **place,
        )
        c2_msra_fill(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C', H', W') features of the input (N, C, H, W)."""
        out = F.relu_(self.conv1(x))
        moves = self.conv2_offset(out)
        taps = moves.shape[1] // 3
        offsets, weights = moves.split((2 * taps, taps), dim=1)
        out = F.relu_(self.conv2(out, offsets, weights.sigmoid()))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(self.conv3(out) + shortcut)
