"""Masks of prototypes: what is cropped, what is learned, and the targets."""

import pytest
import torch
import torch.nn.functional as F

from brloss_d2.losses import DiceLoss, MaskCrossEntropyLoss, dice_loss
from brloss_d2.modeling import PrototypeNet
from brloss_d2.modeling.instance import prototypes
from brloss_d2.modeling.instance.prototypes import cells_inside, mask_targets, prototype_masks


def test_published_crop():
    """Rows 1 to 3 and columns 2 to 5 of 6 x 8 are kept (RS-YOLACT, relative box)."""
    inside = cells_inside(torch.tensor([[0.3, 0.2, 0.55, 0.5]]), (6, 8), (1, 1))[0]
    expected = torch.zeros(6, 8, dtype=torch.bool)
    expected[1:4, 2:6] = True
    assert torch.equal(inside, expected)


def test_boxes_beyond_the_image_and_without_area():
    boxes = torch.tensor([[-50.0, -50, 500, 500], [7, 7, 7, 7], [30, 30, 40, 40]])
    inside = cells_inside(boxes, (4, 4), (16, 16))
    assert inside[0].all()
    assert inside[1].nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert not inside[2].any()


@pytest.mark.parametrize("mask_loss", [DiceLoss(), MaskCrossEntropyLoss()])
def test_nothing_outside_of_the_box_is_learned(mask_loss):
    """Prototypes there have neither value nor gradient, whatever the target."""
    maps = torch.rand(3, 6, 8, requires_grad=True)
    coefficients = torch.randn(2, 3, requires_grad=True)
    boxes = torch.tensor([[0.3, 0.2, 0.55, 0.5]]).expand(2, 4)
    logits = prototype_masks(maps, coefficients, boxes, (1, 1))
    outside = ~cells_inside(boxes, (6, 8), (1, 1))
    assert (logits.sigmoid()[outside] < 1e-40).all()
    losses = mask_loss(logits, torch.ones(2, 6, 8))
    losses.sum().backward()
    assert not maps.grad[:, outside[0]].any()
    assert maps.grad[:, ~outside[0]].any()
    assert coefficients.grad.any()
    if isinstance(mask_loss, MaskCrossEntropyLoss):
        # 36 of the 48 cells are outside, each costs 100, as in the published code.
        inside = F.softplus(-logits.detach()[~outside]).view(2, -1).sum(1)
        torch.testing.assert_close(losses.detach(), (inside + 3600) / 48)


def test_masks_are_sums_of_prototypes():
    maps, coefficients = torch.rand(3, 5, 4), torch.tensor([[1.0, -2.0, 0.5]])
    logits = prototype_masks(maps, coefficients, torch.tensor([[0.0, 0, 4, 5]]), (5, 4))
    torch.testing.assert_close(logits[0], maps[0] - 2 * maps[1] + 0.5 * maps[2])


def test_no_masks():
    maps = torch.rand(3, 5, 4, requires_grad=True)
    logits = prototype_masks(maps, torch.zeros(0, 3), torch.zeros(0, 4), (5, 4))
    assert logits.shape == (0, 5, 4)
    logits.sum().backward()
    assert torch.equal(maps.grad, torch.zeros(3, 5, 4))


def test_published_targets():
    """11 x 11 pixels on 4 x 4 cells; a single pixel is no more than 1/8 of a cell."""
    mask = torch.zeros(1, 11, 11, dtype=torch.bool)
    mask[0, 2:7, 3:8] = True
    mask[0, 8, 8] = True
    found = mask_targets(mask, (11, 11), (4, 4))
    assert found[0].nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_targets_in_the_padding_of_a_batch():
    mask = torch.ones(1, 8, 4, dtype=torch.bool)
    found = mask_targets(mask, (8, 8), (4, 4))
    assert found[0, :, :2].all()
    assert not found[0, :, 2:].any()


def test_many_objects_are_resized_in_parts(monkeypatch):
    masks = torch.rand(7, 12, 12) > 0.5
    whole = mask_targets(masks, (12, 12), (5, 5))
    monkeypatch.setattr(prototypes, "_PIXELS_AT_ONCE", 2 * 12 * 12)
    assert torch.equal(mask_targets(masks, (12, 12), (5, 5)), whole)
    assert mask_targets(masks[:0], (12, 12), (5, 5)).shape == (0, 5, 5)


def test_published_dice_coefficients():
    probs = torch.tensor([[[0.9, 0.2], [0.6, 0.1]], [[0.3, 0.8], [0.5, 0.4]], [[0.5] * 2] * 2])
    targets = torch.tensor([[[1, 0], [1, 0]], [[0, 1], [0, 0]], [[0, 0], [0, 0]]]).float()
    dice = 1 - dice_loss(probs.logit(), targets, eps=1e-5)
    torch.testing.assert_close(dice, torch.tensor([0.931674, 0.747660, 0.0]), rtol=0, atol=5e-7)


@torch.no_grad()
def test_prototype_net():
    torch.manual_seed(0)
    net = PrototypeNet(in_channels=4, num_prototypes=6, conv_dims=(8, 8, 8))
    found = net(torch.rand(2, 4, 5, 7))
    assert found.shape == (2, 6, 10, 14)
    assert found.min() == 0 < found.max()
