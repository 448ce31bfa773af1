"""Score-based baselines."""

import math

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from brloss_d2.losses import (
    BinaryCrossEntropyLoss,
    MatchabilityAwareLoss,
    QualityFocalLoss,
    SigmoidFocalLoss,
    VarifocalLoss,
)


def test_focal_loss_equals_torchvision():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(30, 4, generator=g).requires_grad_()
    targets = (torch.rand(30, 4, generator=g) < 0.1).float()
    for alpha, gamma in ((0.25, 2.0), (0.5, 1.0)):
        ours = SigmoidFocalLoss(alpha=alpha, gamma=gamma)(logits, targets)
        theirs = sigmoid_focal_loss(logits, targets, alpha, gamma)
        torch.testing.assert_close(ours, theirs)
        (grad,) = torch.autograd.grad(ours.sum(), logits)
        torch.testing.assert_close(grad, torch.autograd.grad(theirs.sum(), logits)[0])


def test_binary_cross_entropy():
    logits, targets = torch.zeros(2, 3), torch.ones(2, 3)
    torch.testing.assert_close(
        BinaryCrossEntropyLoss()(logits, targets), torch.full((2, 3), torch.log(torch.tensor(2.0)))
    )


def test_quality_focal_loss_with_hard_targets_is_focal_loss():
    """But for alpha, which weighs positives and negatives alike at 1/2."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(30, 4, generator=g)
    targets = (torch.rand(30, 4, generator=g) < 0.1).float()
    expected = 2 * sigmoid_focal_loss(logits, targets, 0.5, 2.0)
    torch.testing.assert_close(QualityFocalLoss(beta=2.0)(logits, targets), expected)


def test_quality_focal_loss_by_hand():
    """-|y - s|^2 ((1 - y) log(1 - s) + y log s) with s = 1/2, 4/5."""
    logits = torch.tensor([[0.0, math.log(4.0)]])
    targets = torch.tensor([[0.75, 0.5]])
    second = 0.09 * -(0.5 * math.log(0.2) + 0.5 * math.log(0.8))
    expected = torch.tensor([[0.0625 * math.log(2.0), second]])
    torch.testing.assert_close(QualityFocalLoss()(logits, targets), expected)


def test_varifocal_loss_by_hand():
    """-q (q log s + (1 - q) log(1 - s)) for q > 0, else -alpha s^gamma log(1 - s)."""
    logits = torch.tensor([[0.0, math.log(4.0), math.log(4.0)]])
    targets = torch.tensor([[0.75, 0.5, 0.0]])
    middle = 0.5 * -(0.5 * math.log(0.8) + 0.5 * math.log(0.2))
    negative = 0.75 * 0.64 * -math.log(0.2)
    expected = torch.tensor([[0.75 * math.log(2.0), middle, negative]])
    torch.testing.assert_close(VarifocalLoss()(logits, targets), expected)


def test_varifocal_negatives_are_focal_loss():
    logits, targets = torch.linspace(-5, 5, 20)[:, None], torch.zeros(20, 1)
    expected = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2.0)  # 1 - alpha is 0.75
    torch.testing.assert_close(VarifocalLoss()(logits, targets), expected)


def test_matchability_aware_loss_by_hand():
    """-q^g log s - (1 - q^g) log(1 - s) for q > 0, else -s^g log(1 - s)."""
    logits = torch.tensor([[0.0, math.log(4.0), math.log(4.0)]])
    targets = torch.tensor([[0.75, 0.25, 0.0]])
    middle = -(0.125 * math.log(0.8) + 0.875 * math.log(0.2))  # 0.25^1.5 = 1/8
    negative = 0.8**1.5 * -math.log(0.2)
    expected = torch.tensor([[math.log(2.0), middle, negative]])
    torch.testing.assert_close(MatchabilityAwareLoss()(logits, targets), expected)


def test_matchability_aware_negatives_are_focal_loss():
    logits, targets = torch.linspace(-5, 5, 20)[:, None], torch.zeros(20, 1)
    expected = 2 * sigmoid_focal_loss(logits, targets, alpha=0.5, gamma=1.5)
    torch.testing.assert_close(MatchabilityAwareLoss()(logits, targets), expected)


def test_matchability_aware_loss_draws_the_score_to_the_power_of_the_quality():
    """The gradient of a positive is s - q^gamma, however low its quality."""
    logits = torch.tensor([[-1.0, 0.5, 2.0]], requires_grad=True)
    quality = torch.tensor([[0.05, 0.5, 1.0]])
    MatchabilityAwareLoss(gamma=2.0)(logits, quality).sum().backward()
    torch.testing.assert_close(logits.grad, logits.detach().sigmoid() - quality**2)


@pytest.mark.parametrize(
    "loss",
    [QualityFocalLoss(), VarifocalLoss(), SigmoidFocalLoss(), MatchabilityAwareLoss()],
)
def test_gradients(loss):
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=g, dtype=torch.float64).requires_grad_()
    targets = torch.rand(6, 3, generator=g, dtype=torch.float64)
    targets[targets < 0.4] = 0
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), logits)


@pytest.mark.parametrize("loss", [QualityFocalLoss(), VarifocalLoss()])
def test_a_score_that_equals_its_soft_target_is_where_it_should_be(loss):
    logits = torch.tensor([[0.4]], requires_grad=True)
    loss(logits, logits.detach().sigmoid()).sum().backward()
    torch.testing.assert_close(logits.grad, torch.zeros(1, 1), rtol=0, atol=1e-6)
