"""Class weights: by hand, of the batch and of the dataset, and where there is nothing to weigh."""

import pytest
import torch

from brloss_d2.losses import (
    BinaryCrossEntropyLoss,
    ClassWeightedLoss,
    QualityFocalLoss,
    SigmoidFocalLoss,
)

# Rows of class 0, 0, 0, 1 and background; class 2 does not occur.
TARGETS = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]])
LOGITS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def row_weights(loss: ClassWeightedLoss, targets=TARGETS) -> torch.Tensor:
    ratio = loss(LOGITS, targets) / loss.cls_loss(LOGITS, targets)
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    return ratio[:, 0]


@pytest.mark.parametrize("counts", [None, [3, 1, 0]])
def test_by_hand(counts):
    """With beta 1/2, n = 3 and 1: 4/7 and 1, of mean 11/14."""
    found = row_weights(ClassWeightedLoss(BinaryCrossEntropyLoss(), counts=counts, beta=0.5))
    torch.testing.assert_close(found, torch.tensor([8 / 11] * 3 + [14 / 11, 1.0]))


def test_near_1_beta_is_inverse_frequency_and_0_is_none():
    inverse = row_weights(
        ClassWeightedLoss(SigmoidFocalLoss(), counts=[300, 100, 0], beta=1 - 1e-9)
    )
    torch.testing.assert_close(inverse, torch.tensor([0.5] * 3 + [1.5, 1.0]))
    none = row_weights(ClassWeightedLoss(SigmoidFocalLoss(), counts=[300, 100, 0], beta=0))
    torch.testing.assert_close(none, torch.ones(5))


def test_soft_targets_are_those_of_the_weighted_loss():
    assert ClassWeightedLoss(QualityFocalLoss()).soft_targets
    assert not ClassWeightedLoss(BinaryCrossEntropyLoss()).soft_targets
    soft = row_weights(ClassWeightedLoss(QualityFocalLoss(), beta=0.5), TARGETS * 0.7)
    torch.testing.assert_close(soft, torch.tensor([8 / 11] * 3 + [14 / 11, 1.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_finite(rows, dtype):
    for targets in (TARGETS[-rows:] if rows else TARGETS[:0], TARGETS[:rows] * 0):
        logits = (LOGITS[:rows].sign() * 40).to(dtype).requires_grad_()
        loss = ClassWeightedLoss(SigmoidFocalLoss())(logits, targets.to(dtype)).sum()
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()


def test_wrong_arguments():
    loss = BinaryCrossEntropyLoss()
    for options, message in (
        ({"beta": 1}, "beta must be below 1"),
        ({"counts": [-1]}, "counts must be a finite number >= 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            ClassWeightedLoss(loss, **options)
    with pytest.raises(ValueError, match="each of 3 classes, got"):
        ClassWeightedLoss(loss, counts=[1, 2])(LOGITS, TARGETS)
    with pytest.raises(ValueError, match="cls_loss must be of type ScoreLoss"):
        ClassWeightedLoss(torch.nn.ReLU())
