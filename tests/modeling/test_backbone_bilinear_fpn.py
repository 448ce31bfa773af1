"""The pyramid of YOLACT: any size of the image, bilinear, P6 from C5 without ReLU."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import instantiate

from brloss_d2.modeling import P6P7, BilinearFPN
from tests.helpers.golden_models import small_resnet

INPUTS = ["res3", "res4", "res5"]


def pyramid(top_block: str | None = "res5") -> BilinearFPN:
    torch.manual_seed(0)
    top = P6P7(64 if top_block == "res5" else 16, 16, top_block) if top_block else None
    bottom_up = instantiate(small_resnet())
    return BilinearFPN(bottom_up, INPUTS, 16, top_block=top)


@pytest.mark.parametrize(
    ("size", "maps"),
    [
        ((170, 170), [(22, 22), (11, 11), (6, 6), (3, 3), (2, 2)]),
        ((97, 161), [(13, 21), (7, 11), (4, 6), (2, 3), (1, 2)]),
    ],
)
def test_sizes(size, maps):
    fpn = pyramid()
    assert fpn.size_divisibility == 0
    levels = fpn(torch.rand(1, 3, *size))
    assert list(levels) == ["p3", "p4", "p5", "p6", "p7"] == list(fpn.output_shape())
    assert [tuple(x.shape[-2:]) for x in levels.values()] == maps


@torch.no_grad()
def test_against_its_definition():
    fpn, images = pyramid(), torch.rand(2, 3, 97, 161)
    features, found = fpn.bottom_up(images), fpn(images)
    merged = fpn.fpn_lateral5(features["res5"])
    assert torch.equal(found["p5"], fpn.fpn_output5(merged))
    for level in (4, 3):
        feature = features[f"res{level}"]
        upsampled = F.interpolate(merged, size=feature.shape[-2:], mode="bilinear")
        merged = getattr(fpn, f"fpn_lateral{level}")(feature) + upsampled
        assert torch.equal(found[f"p{level}"], getattr(fpn, f"fpn_output{level}")(merged))
    assert torch.equal(found["p6"], fpn.top_block.p6(features["res5"]))
    assert torch.equal(found["p7"], fpn.top_block.p7(found["p6"]))


def test_other_top_blocks():
    assert list(pyramid(None)(torch.rand(1, 3, 64, 64))) == ["p3", "p4", "p5"]
    assert list(pyramid("p5")(torch.rand(1, 3, 64, 64))) == ["p3", "p4", "p5", "p6", "p7"]


def test_initial_weights():
    """Xavier-uniform: the bound of a 1x1 convolution from 64 to 16 channels is sqrt(6 / 80)."""
    bound = (6 / 80) ** 0.5
    largest = pyramid().fpn_lateral5.weight.abs().max()
    assert 0.95 * bound < largest < bound
