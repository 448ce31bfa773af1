"""Content-aware upsampling, CARAFE (Wang et al., ICCV 2019), and a feature pyramid with it.

In plain PyTorch, on any device and without a compiled extension.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d
from detectron2.modeling import Backbone
from torch import Tensor, nn


def carafe(x: Tensor, kernels: Tensor) -> Tensor:
    """Upsample by weighted sums over k x k neighborhoods, with weights for each output pixel.

    Positions outside the input count as zeros. All channels of a group share their weights. Of the
    k * k taps no intermediate result is kept for the backward pass.

    Args:
        x: (N, C, H, W) input.
        kernels: (N, G, k * k, s * s, H, W) weights of each of the G groups of channels and each
            tap (row by row, k odd), for the s x s output pixels (row by row) in place of each
            input pixel.

    Returns:
        (N, C, s * H, s * W) output of the type of `x`; sums are at least of single precision.
    """
    groups, taps, pixels, height, width = kernels.shape[1:]
    size, scale = math.isqrt(taps), math.isqrt(pixels)
    dtype = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        padded = F.pad(x.to(dtype), [size // 2] * 4).unflatten(1, (groups, -1))
        weights = kernels.to(dtype).unbind(2)
        sums = [padded.new_zeros(*padded.shape[:3], height, width) for _ in range(pixels)]
        for tap in range(taps):
            row, column = divmod(tap, size)
            moved = padded[..., row : row + height, column : column + width]
            for pixel, weight in enumerate(weights[tap].unbind(2)):
                # Autograd keeps the factors, which are views, and not the product. One output pixel
                # at a time makes the temporary tensors smaller.
                sums[pixel] += moved * weight[:, :, None]
        return F.pixel_shuffle(torch.stack(sums, 3).flatten(1, 3), scale).to(x.dtype)


class CarafeUpsample(nn.Module):
    """Upsampling by `carafe`, with weights that two convolutions predict from the input.

    Args:
        channels: number of channels of input and output.
        scale: factor between the sides of output and input.
        kernel_size: side of the neighborhoods in pixels of the input, odd.
        groups: number of groups of channels with weights of their own.
        encoder_size: kernel size of the convolution that predicts the weights, odd.
        compressed_channels: number of channels that this convolution reads.
    """

    def __init__(
        self,
        channels: int,
        *,
        scale: int = 2,
        kernel_size: int = 5,
        groups: int = 1,
        encoder_size: int = 3,
        compressed_channels: int = 64,
    ):
        super().__init__()
        self.weights_shape = groups, kernel_size**2, scale**2
        self.compressor = Conv2d(channels, compressed_channels, 1)
        self.encoder = Conv2d(
            compressed_channels,
            math.prod(self.weights_shape),
            encoder_size,
            padding=encoder_size // 2,
        )
        nn.init.xavier_uniform_(self.compressor.weight)
        # Nearly the mean of the neighborhood at the start.
        nn.init.normal_(self.encoder.weight, std=0.001)
        for conv in (self.compressor, self.encoder):
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, s * H, s * W) of the input (N, C, H, W)."""
        encoded = self.encoder(self.compressor(x)).unflatten(1, self.weights_shape)
        return carafe(x, encoded.softmax(2))


class CarafeFPN(Backbone):
    """Feature pyramid of RS-R-CNN+: upsampling by CARAFE, and a learned coarsest level.

    Unlike in detectron2's `FPN`, the coarsest level is a 3x3 convolution with stride 2 of the last
    input, and the path from coarse to fine starts with it. Where a side of an input is odd, the
    surplus of the upsampled map at the right and at the bottom is cut off.

    Args:
        bottom_up: backbone whose features the pyramid is built from.
        in_features: names of its features, with strides that double, finest first.
        out_channels: number of channels of all levels.
        compressed_channels: number of channels from which the weights of the upsampling are
            predicted.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        *,
        compressed_channels: int = 64,
    ):
        super().__init__()
        shapes = [bottom_up.output_shape()[name] for name in in_features]
        self.bottom_up, self.in_features = bottom_up, list(in_features)
        self._size_divisibility = shapes[-1].stride
        finest = int(math.log2(shapes[0].stride))
        self._levels = list(range(finest, finest + len(shapes) + 1))
        for level, shape in zip(self._levels, [*shapes, shapes[-1]], strict=True):
            coarsest = level == self._levels[-1]
            place = dict(kernel_size=3, stride=2, padding=1) if coarsest else dict(kernel_size=1)
            lateral = Conv2d(shape.channels, out_channels, **place)
            output = Conv2d(out_channels, out_channels, 3, padding=1)
            for conv in (lateral, output):
                nn.init.xavier_uniform_(conv.weight)
                nn.init.zeros_(conv.bias)
            self.add_module(f"fpn_lateral{level}", lateral)
            self.add_module(f"fpn_output{level}", output)
            if not coarsest:
                up = CarafeUpsample(out_channels, compressed_channels=compressed_channels)
                self.add_module(f"fpn_upsample{level}", up)
        self._out_feature_strides = {f"p{level}": 2**level for level in self._levels}
        self._out_features = list(self._out_feature_strides)
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)

    @property
    def size_divisibility(self) -> int:
        """Number of pixels to whose multiples images are padded: the stride of the last input."""
        return self._size_divisibility

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the levels by name, p2 to p6 for a ResNet, of images (N, 3, H, W)."""
        features = self.bottom_up(x)
        inputs = [features[name] for name in (*self.in_features, self.in_features[-1])]
        levels: dict[str, Tensor] = {}
        coarser = None
        for level, feature in reversed(list(zip(self._levels, inputs, strict=True))):
            merged = self.get_submodule(f"fpn_lateral{level}")(feature)
            if coarser is not None:
                upsampled = self.get_submodule(f"fpn_upsample{level}")(coarser)
                merged = merged + upsampled[..., : merged.shape[2], : merged.shape[3]]
            levels[f"p{level}"] = self.get_submodule(f"fpn_output{level}")(merged)
            coarser = merged
        return {name: levels[name] for name in self._out_features}
