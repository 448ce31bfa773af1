"""Balancers of the box loss."""

import pytest
import torch

from brloss_d2.losses import ConstantBalancer, EpochSelfBalancer, SelfBalancer


def scalar(x: float) -> torch.Tensor:
    return torch.tensor(x, requires_grad=True)


def test_constant():
    assert ConstantBalancer(2.0)(scalar(1.0), scalar(3.0), 1) == 6


def test_self_balancing_takes_the_value_of_the_ranking():
    cls, box = scalar(0.6), scalar(0.2)
    out = SelfBalancer()(cls, box, 5)
    out.backward()
    torch.testing.assert_close(out.item(), 0.6)
    torch.testing.assert_close(box.grad.item(), 3.0)
    assert cls.grad is None


def test_self_balancing_of_a_box_loss_of_zero():
    box = scalar(0.0)
    out = SelfBalancer()(scalar(0.6), box, 5)
    out.backward()
    assert out == 0
    assert box.grad == 0


def test_self_balancing_shows_nan():
    assert SelfBalancer()(scalar(0.6), scalar(float("nan")), 5).isnan()


# Values of the published implementation: two steps with 2 pools per epoch and head weight 0.2.
CLS = (0.1996713, 0.1996209)
BOX = (0.01621743 / 50, 0.1666103 / 719.0965)


def test_epoch_self_balancing_follows_the_published_sequence():
    balancer = EpochSelfBalancer(pools_per_epoch=2)
    first = balancer(scalar(CLS[0]), scalar(BOX[0]), 3)
    torch.testing.assert_close(first.item(), 0.01621743)
    second = balancer(scalar(CLS[1]), scalar(BOX[1]), 3)
    torch.testing.assert_close(second.item(), 0.1666103)
    torch.testing.assert_close(balancer.weight.item(), 719.0965, rtol=1e-5, atol=0)
    assert balancer.steps == 0


def test_epoch_self_balancing_counts_steps_with_positives_only():
    balancer = EpochSelfBalancer(pools_per_epoch=2)
    for none in (0, torch.tensor(0)):
        balancer(scalar(0.0), scalar(0.0), none)
    assert balancer.steps == 0
    for some in (1, torch.tensor(7)):
        balancer(scalar(0.0), scalar(0.0), some)
    assert balancer.weight == 1


def test_epoch_self_balancing_survives_a_restart():
    balancer = EpochSelfBalancer(pools_per_epoch=2)
    balancer(scalar(CLS[0]), scalar(BOX[0]), 3)
    restarted = EpochSelfBalancer(pools_per_epoch=2)
    restarted.load_state_dict(balancer.state_dict())
    restarted(scalar(CLS[1]), scalar(BOX[1]), 3)
    torch.testing.assert_close(restarted.weight.item(), 719.0965, rtol=1e-5, atol=0)


def test_epoch_self_balancing_backward_after_renewal():
    balancer = EpochSelfBalancer(pools_per_epoch=1)
    box = scalar(0.5)
    balancer(scalar(1.0), box, 1).backward()
    assert box.grad == 3
    with pytest.raises(ValueError, match="pools_per_epoch"):
        EpochSelfBalancer(pools_per_epoch=0)
