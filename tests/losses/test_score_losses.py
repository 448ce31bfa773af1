"""Score-based baselines."""

import torch
from torchvision.ops import sigmoid_focal_loss

from brloss_d2.losses import BinaryCrossEntropyLoss, SigmoidFocalLoss


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
