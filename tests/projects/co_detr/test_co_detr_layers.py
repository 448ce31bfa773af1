"""Positions, geometry, neck, layers and encoder against slow forms of their definitions."""

import math

import pytest
import torch

from brloss_d2.errors import InputError
from brloss_d2.projects.co_detr.layers.geometry import FeatureGeometry
from brloss_d2.projects.co_detr.layers.position import inverse_sigmoid, sine_box, sine_map
from brloss_d2.projects.co_detr.layers.transformer import MLP, DecoderLayer, EncoderLayer
from brloss_d2.projects.co_detr.modeling.encoder import DeformableEncoder, cell_references
from brloss_d2.projects.co_detr.modeling.neck import ChannelMapper

STRIDES = (8, 16, 32, 64)


def geometry() -> FeatureGeometry:
    """Geometry of images of 75x101 and 60x80 pixels in a batch of 75x101."""
    maps = [torch.zeros(2, 1, math.ceil(75 / s), math.ceil(101 / s)) for s in STRIDES]
    return FeatureGeometry.build(maps, [(75, 101), (60, 80)], (75, 101))


def wave(angle: float, k: int, dim: int) -> float:
    phase = angle / 10000 ** (2 * (k // 2) / dim)
    return math.cos(phase) if k % 2 else math.sin(phase)


def test_masks_are_interpolated_not_rounded_up():
    found = geometry()
    counts = [(int((~m[1, :, 0]).sum()), int((~m[1, 0]).sum())) for m in found.masks]
    assert counts == [(8, 11), (4, 6), (3, 4), (2, 2)]
    assert not any(mask[0].any() for mask in found.masks)
    assert found.shapes == ((10, 13), (5, 7), (3, 4), (2, 2))
    for level, (height, width) in enumerate(found.shapes):
        rows, columns = counts[level]
        expected = torch.tensor([columns / width, rows / height])
        torch.testing.assert_close(found.valid_ratios[1, level], expected)
    assert torch.equal(found.valid_ratios[0], torch.ones(4, 2))
    assert torch.equal(found.padding, torch.cat([m.flatten(1) for m in found.masks], dim=1))


def test_sine_map():
    mask, dim = geometry().masks[0][1:], 6
    rows, columns = 8, 11
    found = sine_map(mask, dim)[0]
    for row in range(rows):
        for column in range(columns):
            y = (row + 0.5) / (rows + 1e-6) * 2 * math.pi
            x = (column + 0.5) / (columns + 1e-6) * 2 * math.pi
            expected = [wave(angle, k, dim) for angle in (y, x) for k in range(dim)]
            torch.testing.assert_close(
                found[:, row, column], torch.tensor(expected), rtol=0, atol=2e-6
            )


def test_sine_map_takes_temperature_and_offset():
    mask = torch.zeros(1, 3, 3, dtype=torch.bool)
    found = sine_map(mask, 4, temperature=20, offset=0)[0, :, 0, 1]
    y, x = 1 / 3 * 2 * math.pi, 2 / 3 * 2 * math.pi
    expected = [f(a / t) for a in (y, x) for t in (1, math.sqrt(20)) for f in (math.sin, math.cos)]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=2e-6)


def test_sine_box():
    boxes = torch.tensor([[0.1, 0.2, 0.3, 0.4], [1.7, -0.5, 0.0, 2.0]], dtype=torch.float64)
    found = sine_box(boxes, 8)
    expected = [[wave(2 * math.pi * v, k, 8) for v in b for k in range(8)] for b in boxes.tolist()]
    # Frequencies are float32.
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6
    )
    assert sine_box(boxes.bfloat16(), 8).dtype == torch.float32


def test_inverse_sigmoid():
    x = torch.tensor([-1.0, 0.0, 1e-7, 0.3, 1.0, 2.0], dtype=torch.float64)
    edge = math.log(1e-5)
    found = inverse_sigmoid(x)
    expected = torch.tensor(
        [edge, edge, math.log(1e-5 / (1 - 1e-7)), math.log(3 / 7), -edge, -edge]
    )
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=0)
    assert inverse_sigmoid(x, eps=1e-3)[0] == pytest.approx(math.log(1e-3))


def test_references():
    """Centers of cells relative to the image, then to the padded size of each level."""
    places = geometry()
    found = cell_references(places)
    assert found.shape == (2, places.padding.shape[1], 4, 2)
    start, level = 10 * 13, 1  # row 2, column 3 of the second level
    cell = start + 2 * 7 + 3
    ratios = places.valid_ratios[1]
    center = torch.tensor([3.5 / 6, 2.5 / 4])
    torch.testing.assert_close(found[1, cell], center * ratios)
    torch.testing.assert_close(found[1, cell, level], torch.tensor([3.5 / 7, 2.5 / 5]))


def test_neck():
    torch.manual_seed(0)
    neck = ChannelMapper({"a": 4, "b": 6}, ["a", "b"], out_channels=8, num_outs=4, num_groups=2)
    features = {"a": torch.randn(2, 4, 16, 16), "b": torch.randn(2, 6, 8, 8), "c": None}
    maps = neck(features)
    assert [tuple(x.shape[1:]) for x in maps] == [(8, 16, 16), (8, 8, 8), (8, 4, 4), (8, 2, 2)]
    # The first coarser map comes from the backbone's last map, the second from the first.
    assert [conv.in_channels for conv in neck.extra] == [6, 8]
    assert any((x < 0).any() for x in maps)
    assert not [name for name in neck.state_dict() if name.endswith("convs.0.bias")]
    bound = math.sqrt(6 / (4 + 8))
    assert 0.8 * bound < neck.convs[0].weight.abs().max() <= bound


def test_mistakes_with_the_neck():
    with pytest.raises(InputError, match="not of \\['d'\\]"):
        ChannelMapper({"a": 4}, ["a", "d"])
    with pytest.raises(InputError, match="channels \\[4\\] of 1 maps"):
        ChannelMapper([4], ["a", "b"])
    with pytest.raises(InputError, match="num_outs=1"):
        ChannelMapper([32, 32], ["a", "b"], num_outs=1)


def test_numbers_of_parameters():
    """Parameters of layers in the published sizes."""

    def count(module) -> int:
        return sum(p.numel() for p in module.parameters())

    assert count(EncoderLayer(256, 8, 4, 4, 2048)) == 1_282_176
    assert count(DecoderLayer(256, 8, 4, 4, 2048)) == 1_545_856
    assert count(ChannelMapper([512, 1024, 2048], ["a", "b", "c"])) == 5_638_144


def test_matrices_are_initialized_by_xavier():
    layer = DecoderLayer(64, 8, 4, 4, 128)
    attention = layer.self_attn
    for weight in (
        attention.in_proj_weight,
        attention.out_proj.weight,
        layer.ffn.linear1.weight,
        layer.ffn.linear2.weight,
    ):
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.97 * bound < weight.abs().max() <= bound
    assert not attention.in_proj_bias.any() and not attention.out_proj.bias.any()
    assert layer.ffn.linear1.bias.any()


def test_mlp():
    mlp = MLP(3, 5, 7, 2)
    assert [tuple(layer.weight.shape) for layer in mlp.layers] == [(5, 3), (7, 5), (2, 7)]
    x = torch.randn(4, 3)
    first, second, third = mlp.layers
    assert torch.equal(mlp(x), third(torch.relu(second(torch.relu(first(x))))))


def random_layers(module: torch.nn.Module) -> None:
    """Make offsets and weights of the attention depend on the query."""
    for name, parameter in module.named_parameters():
        if "sampling_offsets.weight" in name or "attention_weights.weight" in name:
            torch.nn.init.normal_(parameter)


def test_padding_is_never_read():
    """Noise in the padded cells of the maps does not change any other cell, bit for bit."""
    torch.manual_seed(0)
    places = geometry()
    encoder = DeformableEncoder(16, 4, 4, 2, num_layers=3, ffn_dim=32)
    random_layers(encoder)
    maps = [torch.randn(2, 16, h, w) for h, w in places.shapes]
    noisy = [
        torch.where(mask[:, None], 9 * torch.randn_like(x), x)
        for x, mask in zip(maps, places.masks, strict=True)
    ]
    clean, changed = encoder(maps, places), encoder(noisy, places)
    assert torch.equal(clean[~places.padding], changed[~places.padding])
    assert not torch.equal(clean, changed)


def test_order_of_queries_is_kept():
    torch.manual_seed(0)
    places = geometry()
    layer = DecoderLayer(16, 4, 4, 2, 32).double()
    random_layers(layer)
    query, position = torch.randn(2, 2, 9, 16, dtype=torch.float64)
    references = torch.rand(2, 9, 4, 4, dtype=torch.float64)
    memory = torch.randn(2, places.padding.shape[1], 16, dtype=torch.float64)
    order = torch.randperm(9)
    found = layer(query[:, order], position[:, order], memory, references[:, order], places)
    expected = layer(query, position, memory, references, places)
    torch.testing.assert_close(found, expected[:, order], rtol=0, atol=1e-12)


def test_every_parameter_of_the_encoder_learns():
    torch.manual_seed(0)
    places = geometry()
    encoder = DeformableEncoder(16, 4, 4, 2, num_layers=2, ffn_dim=32)
    random_layers(encoder)
    maps = [torch.randn(2, 16, h, w) for h, w in places.shapes]
    memory = encoder(maps, places)
    (memory * torch.randn_like(memory)).sum().backward()
    assert not [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert encoder.level_embed.std().item() == pytest.approx(1, abs=0.3)
