"""Neck of Co-DETR: maps of a backbone, all with the same number of channels."""

from collections.abc import Mapping, Sequence

from detectron2.layers import Conv2d
from torch import Tensor, nn

from brloss_d2.errors import InputError


class ChannelMapper(nn.Module):
    """Project each map by a 1x1 convolution, and add coarser maps by 3x3 convolutions of stride 2.

    Each is followed by group normalization, without activation. The first coarser map is computed
    from the last map of the backbone, every further one from the map before it.

    Args:
        input_shapes: channels of the maps, by name or in the order of `in_features`.
        in_features: names of the maps to use, finest first.
        out_channels: channels of every output map.
        num_outs: number of output maps.
        num_groups: groups of each normalization.

    Raises:
        InputError: `input_shapes` does not fit `in_features`, or `num_outs` is below their number.
    """

    def __init__(
        self,
        input_shapes: Sequence[int] | Mapping[str, int],
        in_features: Sequence[str],
        out_channels: int = 256,
        num_outs: int = 4,
        num_groups: int = 32,
    ) -> None:
        super().__init__()
        self.in_features = list(in_features)
        channels = _input_channels(input_shapes, self.in_features)
        num_extra = num_outs - len(channels)
        if num_extra < 0:
            raise InputError(
                f"ChannelMapper was given {len(channels)} maps {self.in_features}, but "
                f"num_outs={num_outs}: name fewer maps or raise num_outs."
            )
        coarser = [channels[-1], *[out_channels] * num_extra][:num_extra]
        self.convs = nn.ModuleList(_conv(c, out_channels, 1, 1, num_groups) for c in channels)
        self.extra = nn.ModuleList(_conv(c, out_channels, 3, 2, num_groups) for c in coarser)

    def forward(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Map the backbone's features (N, C, H, W), by name, to `num_outs` maps, finest first."""
        inputs = [features[name] for name in self.in_features]
        maps = [conv(x) for conv, x in zip(self.convs, inputs, strict=True)]
        last = inputs[-1]
        for conv in self.extra:
            last = conv(last)
            maps.append(last)
        return maps


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, num_groups: int
) -> Conv2d:
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        bias=False,
        norm=nn.GroupNorm(num_groups, out_channels),
    )
    nn.init.xavier_uniform_(conv.weight)
    return conv


def _input_channels(shapes: Sequence[int] | Mapping[str, int], names: list[str]) -> list[int]:
    if isinstance(shapes, Mapping):
        unknown = [name for name in names if name not in shapes]
        if unknown:
            raise InputError(
                f"ChannelMapper knows the channels of {list(shapes)}, but not of {unknown}, which "
                "in_features names: add them to input_shapes."
            )
        return [shapes[name] for name in names]
    if len(shapes) != len(names):
        raise InputError(
            f"ChannelMapper was given the channels {list(shapes)} of {len(shapes)} maps for "
            f"in_features={names}: give as many."
        )
    return list(shapes)
