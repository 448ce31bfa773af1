"""Modulated deformable convolution against its definition, and as a part of a ResNet."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectron2.modeling.backbone.resnet import BasicStem, BottleneckBlock, ResNet
from torch import Tensor, nn

from brloss_d2.checkpoint import Checkpointer
from brloss_d2.modeling import FixedStatsBatchNorm2d
from brloss_d2.modeling.backbone import DeformableBottleneckBlock, ModulatedDeformConv2d


def bilinear(image: Tensor, y: float, x: float) -> Tensor:
    """Of an image (C, H, W) at a point, zero outside."""
    total = image.new_zeros(len(image))
    y0, x0 = int(y // 1), int(x // 1)
    for row, column in itertools.product((y0, y0 + 1), (x0, x0 + 1)):
        if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
            total += (1 - abs(y - row)) * (1 - abs(x - column)) * image[:, row, column]
    return total


def by_definition(
    x: Tensor, kernel: Tensor, offsets: Tensor, weights: Tensor, stride: int, dilation: int
) -> Tensor:
    """Sum over taps k and offset groups of `kernel_k * weight_k * x(p + k + offset_k)`."""
    taps = list(itertools.product(range(3), range(3)))
    groups = weights.shape[1] // len(taps)
    width = x.shape[1] // groups
    out = x.new_zeros(len(x), len(kernel), *weights.shape[2:])
    for n, row, column in itertools.product(range(len(x)), *map(range, weights.shape[2:])):
        for group, (k, (i, j)) in itertools.product(range(groups), enumerate(taps)):
            tap = group * len(taps) + k
            dy, dx = offsets[n, 2 * tap : 2 * tap + 2, row, column].tolist()
            channels = slice(group * width, (group + 1) * width)
            y = row * stride + (i - 1) * dilation + dy
            sample = bilinear(x[n, channels], y, column * stride + (j - 1) * dilation + dx)
            out[n, :, row, column] += (
                kernel[:, channels, i, j] @ sample * weights[n, tap, row, column]
            )
    return out


@pytest.mark.parametrize(("stride", "groups", "dilation"), [(1, 4, 1), (2, 4, 1), (1, 1, 2)])
def test_against_the_definition(stride: int, groups: int, dilation: int) -> None:
    torch.manual_seed(0)
    layer = ModulatedDeformConv2d(
        8, 3, kernel_size=3, stride=stride, padding=dilation, dilation=dilation, bias=False
    ).double()
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    size = 2, -1, (5 - 1) // stride + 1, (6 - 1) // stride + 1
    moves = 2 * torch.randn(2, 27 * groups, *size[2:], dtype=torch.float64)
    offsets, weights = moves[:, : 18 * groups], moves[:, 18 * groups :].sigmoid()
    expected = by_definition(x, layer.weight.detach(), offsets, weights, stride, dilation)
    torch.testing.assert_close(layer(x, offsets, weights), expected, rtol=0, atol=1e-12)


def test_gradients() -> None:
    torch.manual_seed(0)
    layer = ModulatedDeformConv2d(4, 2, kernel_size=3, padding=1, norm=nn.BatchNorm2d(2)).double()
    layer.eval()
    inputs = (
        torch.randn(1, 4, 3, 4, dtype=torch.float64, requires_grad=True),
        # Away from whole pixels, where bilinear interpolation has kinks.
        (torch.rand(1, 36, 3, 4, dtype=torch.float64) * 0.8 + 0.1).requires_grad_(),
        torch.rand(1, 18, 3, 4, dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(layer, inputs)


@pytest.mark.parametrize("stride", [1, 2])
def test_without_offsets_it_is_a_plain_convolution(stride: int) -> None:
    torch.manual_seed(0)
    layer = ModulatedDeformConv2d(8, 4, kernel_size=3, stride=stride, padding=1, groups=2)
    x = torch.randn(2, 8, 6, 7)
    plain = nn.functional.conv2d(x, layer.weight, layer.bias, stride, 1, groups=2)
    offsets = plain.new_zeros(2, 72, *plain.shape[2:])
    weights = plain.new_ones(2, 36, *plain.shape[2:])
    torch.testing.assert_close(layer(x, offsets, weights), plain, rtol=1e-5, atol=1e-6)


def block(cls: type = DeformableBottleneckBlock, **kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    return cls(8, 16, bottleneck_channels=8, stride=2, norm=FixedStatsBatchNorm2d, **kwargs)


def test_a_new_block_halves_the_response_of_the_plain_one() -> None:
    deformable, plain = block(offset_groups=4), block(BottleneckBlock)
    lacking = deformable.load_state_dict(plain.state_dict(), strict=False)
    assert not lacking.unexpected_keys
    assert lacking.missing_keys == ["conv2_offset.weight", "conv2_offset.bias"]
    with torch.no_grad():
        plain.conv2.weight.mul_(0.5)
    x = torch.randn(2, 8, 9, 9)
    torch.testing.assert_close(deformable(x), plain(x), rtol=1e-5, atol=1e-5)


def test_a_block_moves_with_its_offset_convolution() -> None:
    """The channels of the convolution: for each group and tap y and x, then all weights."""
    deformable, plain = block(offset_groups=4), block(BottleneckBlock)
    plain.load_state_dict(deformable.state_dict(), strict=False)
    bias = deformable.conv2_offset.bias.detach().view(-1)
    assert len(bias) == 27 * 4
    bias[:72] = torch.tensor([1.0, -2.0]).repeat(36)  # one down, two to the left
    bias[72:] = 40.0  # a weight of 1
    plain.conv1.forward = shifted(plain.conv1.forward)
    x = torch.randn(2, 8, 9, 9)
    inside = (..., slice(1, -1), slice(1, -1))  # the shift cuts off what the border would see
    torch.testing.assert_close(deformable(x)[inside], plain(x)[inside], rtol=1e-5, atol=1e-5)


def shifted(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A layer whose map is moved one pixel up and two to the right."""

    def move(x: Tensor) -> Tensor:
        return nn.functional.pad(forward(x)[:, :, 1:, :-2], (2, 0, 0, 1))

    return move


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    layer = ModulatedDeformConv2d(8, 4, kernel_size=3, padding=1)
    x, offsets = torch.randn(1, 8, 5, 5), torch.randn(1, 18, 5, 5)
    inputs = [t.to(dtype) for t in (x, offsets, torch.rand(1, 9, 5, 5))]
    expected = layer(*(t.float() for t in inputs))
    with torch.autocast("cpu", dtype):
        out = layer(*inputs)
    assert out.dtype == dtype
    assert torch.equal(out, expected.to(dtype)), "rounded once, at the end"


def test_every_parameter_of_a_block_learns() -> None:
    deformable = block(offset_groups=4)
    deformable(torch.randn(2, 8, 9, 9)).square().sum().backward()
    for name, parameter in deformable.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def resnet(**stage: object) -> ResNet:
    """A narrow ResNet, its last stage made of the block asked for."""
    common = dict(norm=FixedStatsBatchNorm2d, bottleneck_channels=8, num_blocks=2)
    return ResNet(
        BasicStem(out_channels=8, norm=FixedStatsBatchNorm2d),
        [
            ResNet.make_stage(
                BottleneckBlock, stride_per_block=[1, 1], in_channels=8, out_channels=16, **common
            ),
            ResNet.make_stage(
                stride_per_block=[2, 1], in_channels=16, out_channels=32, **common, **stage
            ),
        ],
        out_features=["res3"],
        freeze_at=2,
    )


def test_in_a_resnet() -> None:
    network = resnet(block_class=DeformableBottleneckBlock, offset_groups=4)
    out = network(torch.randn(1, 3, 33, 40))["res3"]
    assert out.shape == (1, 32, 5, 5)
    assert network.res3[1].conv2_offset.weight.shape == (108, 8, 3, 3)
    assert network.res3[0].conv2_offset.weight.requires_grad
    frozen = resnet(block_class=DeformableBottleneckBlock).freeze(3)
    assert not any(p.requires_grad for p in frozen.parameters())


def test_weights_of_a_plain_resnet_start_it(tmp_path: Path) -> None:
    plain = resnet(block_class=BottleneckBlock)
    torch.save({"model": plain.state_dict()}, tmp_path / "a.pth")
    network = resnet(block_class=DeformableBottleneckBlock)
    Checkpointer(network).load(str(tmp_path / "a.pth"))
    assert torch.equal(network.res3[0].conv2.weight, plain.res3[0].conv2.weight)
    assert not network.res3[0].conv2_offset.weight.any()
