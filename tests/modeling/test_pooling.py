"""Regions are pooled from the levels that detectron2 gives them, to the last bit."""

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

from brloss_d2.modeling.rcnn.pooling import OneWaitPooler

STRIDES = (4, 8, 16, 32)


def random_boxes(count: int, seed: int) -> Boxes:
    g = torch.Generator().manual_seed(seed)
    corner = 250 * torch.rand(count, 2, generator=g)
    return Boxes(torch.cat([corner, corner + 250 * torch.rand(count, 2, generator=g) ** 3], 1))


@pytest.mark.parametrize("counts", [(30, 20), (0, 5), (0, 0)])
def test_features_and_gradients_are_those_of_detectron2(counts):
    pooler = ROIPooler(3, [1 / stride for stride in STRIDES], 0, "ROIAlignV2")
    boxes = [random_boxes(count, seed) for seed, count in enumerate(counts)]
    found = []
    for pool in (pooler, OneWaitPooler(pooler)):
        torch.manual_seed(0)
        maps = [torch.randn(2, 2, 512 // x, 512 // x, requires_grad=True) for x in STRIDES]
        features = pool(maps, boxes)
        (features * torch.arange(features.numel()).view(features.shape)).sum().backward()
        found.append([features, *(x.grad for x in maps if x.grad is not None)])
    for expected, own in zip(*found, strict=True):
        assert torch.equal(expected, own)


def test_a_region_that_is_not_finite_has_no_features():
    pooler = ROIPooler(3, [1 / stride for stride in STRIDES], 0, "ROIAlignV2")
    boxes = Boxes(torch.tensor([[0.0, 0.0, 40.0, 40.0], [0.0, 0.0, torch.nan, 40.0]]))
    maps = [torch.ones(1, 2, 512 // x, 512 // x) for x in STRIDES]
    features = OneWaitPooler(pooler)(maps, [boxes])
    assert torch.equal(features, pooler(maps, [boxes]))
    assert features[1].abs().max() == 0
