"""Neck, geometry, positions and encoder against the published implementation."""

import pytest
import torch

from brloss_d2.projects.co_detr.layers.position import sine_map
from brloss_d2.projects.co_detr.modeling.encoder import DeformableEncoder
from brloss_d2.projects.co_detr.modeling.neck import ChannelMapper
from tests.helpers.golden_models import Golden, load
from tests.projects.co_detr.golden_co_detr import (
    NAMES,
    SIZES,
    encoder_state,
    geometry,
    maps,
    neck_state,
)

# Largest differences measured: none in geometry, positions and neck, 2e-6 in the memory.
EXACT = {"rtol": 0, "atol": 2e-7}
CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(params=NAMES)
def golden(request) -> Golden:
    return load(request.param)


def test_geometry(golden):
    found = geometry(golden)
    assert [list(shape) for shape in found.shapes] == golden.tensor(
        "geometry/spatial_shapes"
    ).tolist()
    assert torch.equal(found.padding, golden.tensor("geometry/padding_mask").bool())
    assert torch.equal(torch.cat([x.flatten(1) for x in found.masks], 1), found.padding)
    assert torch.equal(found.valid_ratios, golden.tensor("geometry/valid_ratios"))


def test_positions(golden):
    """Padded cells agree too, where rounding decides: the order of operations is the same."""
    dim = SIZES["dim"] // 2
    for mask, expected in zip(
        geometry(golden).masks, maps(golden, "geometry/pos_encoding/p"), strict=True
    ):
        torch.testing.assert_close(sine_map(mask, dim), expected, **EXACT)


def test_neck(golden):
    neck = ChannelMapper([16, 32, 64], ["c3", "c4", "c5"], 32, num_groups=32)
    neck.load_state_dict(neck_state(golden))
    inputs = {name: golden.tensor(f"backbone/{name}") for name in neck.in_features}
    for found, expected in zip(neck(inputs), maps(golden, "neck/p"), strict=True):
        torch.testing.assert_close(found, expected, **CLOSE)


def test_encoder(golden):
    encoder = DeformableEncoder(**SIZES, num_layers=2)
    encoder.load_state_dict(encoder_state(golden))
    memory = encoder(maps(golden, "neck/p"), geometry(golden))
    torch.testing.assert_close(memory, golden.tensor("encoder/memory"), **CLOSE)
