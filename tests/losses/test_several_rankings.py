"""Several rankings as a leading axis: the terms and gradients of one after the other."""

import pytest
import torch

from brloss_d2.losses import alrp_loss, rank_sort_loss
from tests.helpers.cases import TABLE

pytest.importorskip("support.pretend_device", exc_type=ImportError)  # an older torch
from support.pretend_device import DEVICE, pretend_device

LOSSES = ("ap", "bap", "rs", "brs")
RANKINGS, DECISIONS, POSITIVES = 5, 400, 30


def problem() -> list[torch.Tensor]:
    """Logits and quality with ties, labels with ignored ones, positions of the positives."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(RANKINGS, DECISIONS, generator=g).round(decimals=2)
    mixed = torch.stack([torch.randperm(DECISIONS, generator=g) for _ in range(RANKINGS)])
    positives = mixed[:, :POSITIVES].sort().values
    labels = torch.zeros(RANKINGS, DECISIONS, dtype=torch.int8)
    labels.scatter_(1, mixed[:, -40:], -1).scatter_(1, positives, 1)
    quality = torch.rand(RANKINGS, POSITIVES, generator=g).round(decimals=1)
    return [logits, labels, quality, positives]


def run(loss: str, tensors: list[torch.Tensor], delta: float) -> tuple[dict, torch.Tensor]:
    logits, labels, quality, positives = tensors
    logits = logits.clone().requires_grad_()
    out = TABLE[loss].function(logits, labels, quality, delta=delta, positives=positives)
    weights = torch.linspace(1, 2, logits.shape[0], device=logits.device)
    torch.stack([value @ weights for value in out.values()]).sum().backward()
    return {name: value.detach() for name, value in out.items()}, logits.grad


@pytest.mark.parametrize("delta", [0.0, 0.5])
@pytest.mark.parametrize("loss", LOSSES)
def test_at_once_on_a_device_and_in_turn_on_a_cpu(loss: str, delta: float) -> None:
    expected, expected_gradient = run(loss, problem(), delta)
    assert all(value.shape == (RANKINGS,) for value in expected.values())
    with pretend_device() as device:
        tensors = [x.to(DEVICE) for x in problem()]
        device.reset()
        run(loss, [x[0][None] for x in tensors], delta)
        of_one = device.launches.total()
        device.reset()
        found, gradient = run(loss, tensors, delta)
        assert device.launches.total() <= of_one + 1
        assert not device.syncs
        for name, value in expected.items():
            torch.testing.assert_close(found[name].to("cpu"), value)
        torch.testing.assert_close(gradient.to("cpu"), expected_gradient)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_first_of_several_is_the_loss_of_the_first(loss: str) -> None:
    expected, expected_gradient = run(loss, problem(), 0.5)
    logits, labels, quality, positives = (x[0] for x in problem())
    logits.requires_grad_()
    out = TABLE[loss].function(logits, labels, quality, delta=0.5, positives=positives)
    sum(out.values()).backward()
    for name, value in out.items():
        assert value.detach() == expected[name][0]
    torch.testing.assert_close(logits.grad, expected_gradient[0])


@pytest.mark.parametrize("loss", LOSSES)
def test_no_positives_and_broken_logits(loss: str) -> None:
    logits, labels, quality, positives = problem()
    logits[1, 7] = torch.nan
    with pretend_device():
        for count in (0, POSITIVES):
            some = labels.clone() if count else labels.clamp(max=0)
            tensors = [logits, some, quality[:, :count], positives[:, :count]]
            found, _ = run(loss, [x.to(DEVICE) for x in tensors], 0.5)
            for value in found.values():
                assert value.to("cpu").isnan().tolist() == [False, True, False, False, False]
                assert count or not value.to("cpu")[0]


@pytest.mark.parametrize(
    ("rows", "values", "message"),
    [
        ((3, 3, 2), (2, 1), "for each of 3 rankings"),
        ((0, 0, 0), (0, 1), "at least one"),
        ((3, 3, 3), (3,), r"one quality for each of the 3 positives .* \(3, 1\), got \(3,\)"),
    ],
)
def test_axes_that_do_not_fit(rows, values, message) -> None:
    logits, labels = torch.zeros(rows[0], 5), torch.zeros(rows[1], 5, dtype=torch.int64)
    positives = torch.zeros(rows[2], 1, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        rank_sort_loss(logits, labels, torch.zeros(values), positives=positives)


def test_alrp_takes_one_ranking() -> None:
    logits, labels = torch.zeros(3, 5), torch.zeros(3, 5, dtype=torch.int64)
    positives = torch.zeros(3, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"positives must have the shape \(P,\), got \(3, 1\)"):
        alrp_loss(logits, labels, torch.zeros(3, 1), positives=positives)
    with pytest.raises(ValueError, match="localization_error must be floating point"):
        alrp_loss(logits[0], labels[0] + 1, torch.ones(5, dtype=torch.int64))
