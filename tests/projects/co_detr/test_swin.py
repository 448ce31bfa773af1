"""Swin transformers have the published sizes and compute the same as torchvision's."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.config import LazyConfig, instantiate
from torch import Tensor, nn

from brloss_d2.projects.co_detr.modeling.swin import Swin

CONFIGS = Path(__file__).parents[3] / "projects/co_detr/configs"
SMALL = dict(embed_dim=12, depths=(2, 2, 2, 2), num_heads=(1, 2, 2, 2), window_size=3)


@pytest.mark.parametrize(
    ("name", "numbers", "channels", "rate"),
    [
        ("swin_t", 27_520_506, (192, 384, 768), 0.2),
        ("swin_l", 195_200_820, (384, 768, 1536), 0.3),
    ],
)
def test_sizes_of_the_published_backbones(
    name: str, numbers: int, channels: tuple[int, ...], rate: float
) -> None:
    cfg = LazyConfig.load(str(CONFIGS / f"co_deformable_detr_{name}_brs_1x.py"))
    swin = instantiate(cfg.model.backbone)
    assert sum(p.numel() for p in swin.parameters()) == numbers
    assert all(p.requires_grad for p in swin.parameters())
    shapes = swin.output_shape()
    assert tuple(shape.channels for shape in shapes.values()) == channels
    assert tuple(cfg.model.neck.input_shapes) == channels
    assert list(shapes) == cfg.model.neck.in_features
    assert [shape.stride for shape in shapes.values()] == [8, 16, 32]
    rates = [block.drop_path.p for layer in swin.layers for block in layer.blocks]
    assert (rates[0], rates[-1]) == (0, pytest.approx(rate))
    steps = [b - a for a, b in pairwise(rates)]
    assert steps == pytest.approx([rate / (len(rates) - 1)] * len(steps), rel=1e-4)


def test_every_output_has_a_normalization_and_nothing_else_is_new() -> None:
    names = {name for name, _ in Swin(**SMALL).named_parameters()}
    norms = {f"norm{i}.{tensor}" for i in (1, 2, 3) for tensor in ("weight", "bias")}
    assert {name for name in names if not name.startswith(("layers.", "patch_embed."))} == norms
    block = {name for name in names if name.startswith("layers.0.blocks.1.")}
    linear = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    expected = {f"{name}.{tensor}" for name in linear for tensor in ("weight", "bias")}
    expected.add("attn.relative_position_bias_table")
    assert {name.removeprefix("layers.0.blocks.1.") for name in block} == expected


@torch.no_grad()
@pytest.mark.parametrize("size", [(140, 176), (144, 168)])
def test_the_same_maps_as_torchvision(size: tuple[int, int]) -> None:
    """The maps need padding to whole windows, e.g. 35 x 44 cells with windows of 3."""
    torch.manual_seed(0)
    reference = torchvision.models.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=SMALL["embed_dim"],
        depths=list(SMALL["depths"]),
        num_heads=list(SMALL["num_heads"]),
        window_size=[3, 3],
        stochastic_depth_prob=0.0,
    ).eval()
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.3)
    swin = Swin(**SMALL, drop_path_rate=0.5).eval()
    missing, unexpected = swin.load_state_dict(our_names(reference), strict=False)
    assert not unexpected
    assert all(name.startswith("norm") or "position_index" in name for name in missing)
    images = torch.randn(2, 3, *size)
    maps, x = swin(images), images
    for i, layer in enumerate(reference.features):
        x = layer(x)
        if i in (3, 5, 7):
            expected = nn.functional.layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2)
            torch.testing.assert_close(maps[f"p{i // 2}"], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("size", [(75, 101), (1, 1), (33, 97), (64, 96)])
def test_any_size(size: tuple[int, int]) -> None:
    maps = Swin(**SMALL).eval()(torch.randn(1, 3, *size))
    for stride, x in zip((8, 16, 32), maps.values(), strict=True):
        assert tuple(x.shape[2:]) == tuple(-(-side // stride) for side in size)
    assert Swin(**SMALL).size_divisibility == 0


def test_stochastic_depth_drops_whole_branches_of_an_image() -> None:
    torch.manual_seed(0)
    swin = Swin(**SMALL, drop_path_rate=0.6)
    drop = swin.layers[-1].blocks[-1].drop_path
    x = torch.ones(1000, 5, 3)
    kept = drop(x)[:, 0, 0]
    assert torch.equal(drop(x).flatten(1).std(1), torch.zeros(1000)), "one draw per image"
    assert sorted(set(kept.tolist())) == pytest.approx([0, 1 / 0.4])
    assert (kept == 0).float().mean().item() == pytest.approx(0.6, abs=0.05)
    assert torch.equal(drop.eval()(x), x)
    images = torch.randn(4, 3, 40, 56)
    assert not torch.equal(swin.train()(images)["p3"], swin(images)["p3"])
    assert torch.equal(swin.eval()(images)["p3"], swin(images)["p3"])


def test_impossible_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="drop_path_rate must be in"):
        Swin(**SMALL, drop_path_rate=1.0)


def our_names(reference: nn.Module) -> dict[str, Tensor]:
    """Weights of torchvision's network under our names; it has stages and mergers in one list."""
    renamed = {}
    for name, weight in reference.state_dict().items():
        if not name.startswith("features.") or name.endswith("relative_position_index"):
            continue
        number, rest = name.removeprefix("features.").split(".", 1)
        stage = (int(number) - 1) // 2
        if number == "0":
            rest = rest.replace("0.", "proj.", 1).replace("2.", "norm.", 1)
            renamed[f"patch_embed.{rest}"] = weight
        elif int(number) % 2:
            rest = rest.replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")
            renamed[f"layers.{stage}.blocks.{rest}"] = weight
        else:
            renamed[f"layers.{stage}.downsample.{rest}"] = weight
    return renamed
