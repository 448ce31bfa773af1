"""Heads of one-stage detectors and their box encodings."""

import math

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform

from brloss_d2.modeling import DeltaTransform, LogDistanceTransform, TowerHead
from brloss_d2.modeling.one_stage import RatioMajorAnchorGenerator

ANCHORS = torch.tensor([[0.0, 0, 16, 16], [8.0, 8, 40, 24]])
BOXES = torch.tensor([[2.0, 1, 18, 12], [0.0, 10, 30, 30]])


@pytest.mark.parametrize("has_quality", [False, True])
def test_outputs(has_quality):
    head = TowerHead(
        in_channels=8,
        num_classes=5,
        num_anchors=3,
        conv_dims=(32, 32),
        norm="GN",
        num_scaled_levels=2,
        has_quality=has_quality,
    )
    outputs = head([torch.randn(2, 8, 6, 4), torch.randn(2, 8, 3, 2)])
    assert (outputs.quality is not None) == has_quality
    kinds = outputs[: 2 + has_quality]
    assert [kind[0].shape[1] for kind in kinds] == [15, 12, 3][: len(kinds)]
    assert all(kind[1].shape[2:] == (3, 2) for kind in kinds)
    names = dict(head.named_parameters())
    assert "cls_tower.0.bias" not in names
    assert {"cls_tower.1.norm.weight", "box_tower.0.weight", "scales.1.scale"} <= names.keys()
    assert ("quality.weight" in names) == has_quality
    prior = head.cls_logits.bias.sigmoid()
    torch.testing.assert_close(prior, torch.full_like(prior, 0.01))


def test_a_quality_branch_leaves_the_other_initial_weights_alone():
    heads = []
    for has_quality in (False, True):
        torch.manual_seed(3)
        options = dict(in_channels=8, num_classes=2, num_anchors=3, conv_dims=(8,))
        heads.append(TowerHead(**options, has_quality=has_quality).state_dict())
    without, with_it = heads
    assert all(torch.equal(value, with_it[name]) for name, value in without.items())
    assert with_it["quality.weight"].std() < 0.02


def test_a_scale_belongs_to_its_level():
    head = TowerHead(
        in_channels=4, num_classes=1, num_anchors=1, conv_dims=(4,), num_scaled_levels=2
    )
    x = torch.randn(1, 4, 5, 5)
    torch.nn.init.constant_(head.scales[1].scale, 3.0)
    first, second = head([x, x]).deltas
    torch.testing.assert_close(second, 3 * first)


def test_without_norm_there_are_biases_and_no_scales():
    head = TowerHead(in_channels=4, num_classes=1, num_anchors=1, conv_dims=(4,))
    names = dict(head.named_parameters())
    assert "cls_tower.0.bias" in names
    assert not any("norm" in name or "scale" in name for name in names)


@pytest.mark.parametrize(
    "transform", [DeltaTransform((10.0, 10.0, 5.0, 5.0)), LogDistanceTransform()]
)
def test_encoding_there_and_back(transform):
    anchors = ANCHORS.clone()
    anchors[1] = torch.tensor([9.0, 11, 25, 27])  # a square whose center is in the box
    deltas = transform.get_deltas(anchors, BOXES)
    torch.testing.assert_close(transform.apply_deltas(deltas, anchors), BOXES)


def test_deltas_are_those_of_detectron2_within_bounds_on_both_sides():
    ours, theirs = DeltaTransform((10.0, 10.0, 5.0, 5.0)), Box2BoxTransform((10.0, 10.0, 5.0, 5.0))
    deltas = torch.tensor([[1.0, -2, 3, -4], [0.5, 0.1, -1e3, 1e3]], requires_grad=True)
    decoded = ours.apply_deltas(deltas, ANCHORS)
    torch.testing.assert_close(decoded[0], theirs.apply_deltas(deltas, ANCHORS)[0])
    sides = decoded[1, 2:] - decoded[1, :2]
    torch.testing.assert_close(sides, torch.tensor([32 / 62.5, 16 * 62.5]))
    decoded.sum().backward()
    assert deltas.grad.isfinite().all()


def test_distances_are_bounded_as_targets_only():
    transform = LogDistanceTransform()
    point = torch.tensor([[0.0, 0, 16, 16]])
    far = transform.get_deltas(point, torch.tensor([[7.9, 8 - 1e5, 9, 9]]))
    torch.testing.assert_close(far[0, :2], torch.tensor([-math.log(16), math.log(16)]))
    decoded = transform.apply_deltas(torch.full((1, 4), 4.0), point)
    torch.testing.assert_close(decoded[0, 2], torch.tensor(8 + 16 * math.exp(4)))


def test_order_of_anchors():
    generator = RatioMajorAnchorGenerator(
        sizes=[[10, 20]], aspect_ratios=[0.25, 1.0], strides=[8], offset=0.0
    )
    (anchors,) = generator.cell_anchors
    widths = anchors[:, 2] * 2
    assert widths.tolist() == [20, 40, 10, 20]
