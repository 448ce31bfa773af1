"""Losses of masks: Dice and cross-entropy."""

import pytest
import torch
import torch.nn.functional as F

from brloss_d2.losses import DiceLoss, MaskCrossEntropyLoss, dice_loss

LOGITS = torch.tensor([[[0.5, -1], [2, 0]], [[1, 1], [-1, -1]], [[0, 0.3], [-0.3, 2]]])
TARGETS = torch.tensor([[[1, 0], [1, 0]], [[1, 1], [1, 0]], [[0, 0], [0, 1]]]).bool()


def test_published_values():
    expected = torch.tensor([0.137447, 0.178340, 0.305611])
    torch.testing.assert_close(DiceLoss()(LOGITS, TARGETS), expected, rtol=0, atol=1e-6)


def test_perfect_and_opposite_masks():
    logits = torch.where(TARGETS, 30.0, -30.0)
    assert (dice_loss(logits, TARGETS) < 1e-5).all()
    assert (dice_loss(-logits, TARGETS) > 1 - 1e-5).all()


def test_empty_target_is_never_right():
    empty = torch.zeros(1, 4, 4)
    assert dice_loss(empty - 30, empty) == 1


def test_gradient():
    logits = LOGITS.double().requires_grad_()
    torch.autograd.gradcheck(lambda x: dice_loss(x, TARGETS), logits)


def test_mean_of_cross_entropy_is_that_of_all_pixels():
    expected = F.binary_cross_entropy_with_logits(LOGITS, TARGETS.float())
    torch.testing.assert_close(MaskCrossEntropyLoss()(LOGITS, TARGETS).mean(), expected)


@pytest.mark.parametrize("loss", [DiceLoss(), MaskCrossEntropyLoss()])
def test_half_precision_none_and_wrong_shapes(loss):
    assert loss(LOGITS.bfloat16(), TARGETS).dtype == torch.float32
    assert loss(LOGITS.double(), TARGETS).dtype == torch.float64
    assert loss(LOGITS[:0], TARGETS[:0]).shape == (0,)
    with pytest.raises(ValueError, match=r"\(P, S, S\) logits .* got \(3, 2, 2\) and \(2, 2, 2\)"):
        loss(LOGITS, TARGETS[:2])


def test_eps_is_checked():
    with pytest.raises(ValueError, match="eps must be a finite number > 0, got 0"):
        DiceLoss(eps=0)
