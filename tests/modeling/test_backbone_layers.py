"""Layers of backbones, by which learning rates decay."""

import math
from copy import deepcopy

import pytest
import torch
from detectron2.modeling.backbone import SwinTransformer
from detectron2.modeling.backbone.fpn import FPN
from detectron2.modeling.backbone.resnet import BasicStem, ResNet
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
from torch import nn

from brloss_d2.errors import InputError
from brloss_d2.modeling import TorchvisionBackbone
from brloss_d2.modeling.backbone.layers import layer_decay_factors


def resnet() -> FPN:
    stages = ResNet.make_default_stages(18)
    bottom_up = ResNet(BasicStem(out_channels=64), stages, out_features=["res4", "res5"])
    return FPN(bottom_up, ["res4", "res5"], 8)


def swin() -> SwinTransformer:
    return SwinTransformer(
        embed_dim=8, depths=(1, 2), num_heads=(1, 1), out_indices=(0, 1), drop_path_rate=0, ape=True
    )


def vit() -> nn.ModuleDict:
    """The names of detectron2's `SimpleFeaturePyramid` of a `ViT`, which needs timm."""
    block = nn.ModuleDict({"attn": nn.Linear(1, 1), "residual": nn.Linear(1, 1)})
    parts = {"patch_embed": nn.Linear(1, 1), "blocks": nn.ModuleList([block, deepcopy(block)])}
    net = nn.ModuleDict(parts)
    net.register_parameter("pos_embed", nn.Parameter(torch.zeros(1)))
    pyramid = nn.ModuleDict({"simfp_2": nn.Linear(1, 1)})
    pyramid.net = net
    return pyramid


def distances(backbone: nn.Module) -> dict[str, float]:
    """Return how many layers each parameter is below the heads."""
    model = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(1, 1)})
    factors = layer_decay_factors(model, 0.5)
    return {name: -math.log2(factors.get(name, 1.0)) for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        (
            resnet,
            {
                **{"bottom_up.stem.conv1": 5, "bottom_up.res2": 4, "bottom_up.res3": 3},
                **{"bottom_up.res4": 2, "bottom_up.res5": 1, "fpn_lateral4": 0},
            },
        ),
        (
            swin,
            {
                **{"absolute_pos_embed": 4, "patch_embed": 4, "layers.0.blocks.0": 3},
                **{"layers.0.downsample": 3, "layers.1.blocks.0": 2, "layers.1.blocks.1": 1},
                **{"norm0": 0, "norm1": 0},
            },
        ),
        (
            lambda: TorchvisionBackbone("mobilenet_v3_small"),
            {f"features.{i}": 13 - i for i in range(13)},
        ),
        (
            lambda: TorchvisionBackbone("regnet_y_400mf"),
            {"stem": 5, **{f"trunk_output.block{i}": 5 - i for i in range(1, 5)}},
        ),
    ],
)
def test_layers_are_counted_from_the_image(backbone, expected):
    found = distances(backbone())
    assert found.pop("head.weight") == found.pop("head.bias") == 0
    for part, distance in expected.items():
        below = [name for name in found if f"{name}.".startswith(f"backbone.{part}.")]
        assert below and {found.pop(name) for name in below} == {distance}, part
    assert not {name for name in found if "fpn_" not in name}, "all parts are expected"


def test_factors_of_vitdet_are_those_of_detectron2():
    backbone = vit()
    for name, distance in distances(backbone).items():
        known = get_vit_lr_decay_rate(name, 0.5, num_layers=2)
        assert 0.5**distance == pytest.approx(known), name


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.ModuleDict({"head": nn.Linear(1, 1)}), "ModuleDict has no backbone"),
        (nn.ModuleDict({"backbone": nn.Linear(1, 1)}), "no layers are known in Linear"),
    ],
)
def test_models_without_layers(model, message):
    with pytest.raises(InputError, match=message):
        layer_decay_factors(model, 0.5)
