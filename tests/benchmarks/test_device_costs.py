"""The pretend device computes what the CPU does, and a GPU is given no more work than committed."""

from pathlib import Path

import pytest
import torch

from brloss_d2 import losses
from brloss_d2.modeling.backbone import ModulatedDeformConv2d

pytest.importorskip("support.pretend_device", exc_type=ImportError)  # an older torch
from device_costs import measure, names, read
from support.pretend_device import DEVICE, move, pretend_device

COMMITTED = read(Path(__file__).parents[2] / "docs/benchmarks/device_costs.csv")
LOSSES = {
    "rs": losses.rank_sort_loss,
    "brs": losses.bucketed_rank_sort_loss,
    "ap": losses.ap_loss,
    "bap": losses.bucketed_ap_loss,
    "alrp": losses.alrp_loss,
}
UPDATE = "python benchmarks/device_costs.py --output docs/benchmarks/device_costs.csv"


def test_every_row_is_committed() -> None:
    assert list(COMMITTED) == names(), UPDATE


@pytest.mark.parametrize("name", COMMITTED)
def test_costs(name: str) -> None:
    """At most 5 % more launches than committed, and no more waits; nor are the numbers outdated."""
    found, committed = measure(name), COMMITTED[name]
    for field in ("launches", "inference_launches"):
        now, before = getattr(found, field), getattr(committed, field)
        assert 0.95 * before <= now <= 1.05 * before, f"{field} {before} -> {now}: {UPDATE}"
    assert found.syncs <= committed.syncs, UPDATE
    assert found.inference_syncs <= committed.inference_syncs, UPDATE


@pytest.mark.parametrize(
    "name", ["retinanet_R_18_FPN_rs", "faster_rcnn_R_18_FPN_brs", "mask_rcnn_R_18_FPN_rs"]
)
def test_mixed_precision(name: str) -> None:
    """Two types meet nowhere, and the losses are about those of the CPU."""
    assert measure(f"quick/{name}_300it", autocast=True).launches > 0


def test_deformable_convolution() -> None:
    torch.manual_seed(0)
    layer = ModulatedDeformConv2d(4, 6, 3, padding=1)
    inputs = [torch.randn(2, 4, 9, 7), torch.randn(2, 18, 9, 7), torch.rand(2, 9, 9, 7)]
    expected = layer(*inputs)
    expected.sum().backward()
    gradients = {key: p.grad for key, p in layer.named_parameters()}
    layer.zero_grad()
    with pretend_device():
        move(layer)
        found = layer(*(x.to(DEVICE) for x in inputs))
        found.sum().backward()
        torch.testing.assert_close(found.to("cpu"), expected)
        for key, parameter in layer.named_parameters():
            torch.testing.assert_close(parameter.grad.to("cpu"), gradients[key])


def problem(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits with ties, labels with ignored ones, quality with ties, positions of the positives."""
    g = torch.Generator().manual_seed(seed)
    logits = (4 * torch.randn(3000, generator=g)).round(decimals=seed % 3)
    labels = torch.randint(-1, 2, (3000,), generator=g, dtype=torch.int8)
    labels[torch.rand(3000, generator=g) < 0.9] = 0
    positives = (labels == 1).nonzero().squeeze(1)
    quality = torch.rand(len(positives), generator=g).round(decimals=1)
    return logits, labels, quality, positives


@pytest.mark.parametrize("delta", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients(name: str, delta: float) -> None:
    for seed in range(4):
        logits, labels, quality, positives = problem(seed)
        own = logits.clone().requires_grad_()
        expected = LOSSES[name](own, labels, quality, delta=delta, positives=positives)
        torch.stack(list(expected.values())).sum().backward()
        with pretend_device():
            there = logits.to(DEVICE).requires_grad_()
            found = LOSSES[name](
                there,
                *(labels.to(DEVICE), quality.to(DEVICE)),
                delta=delta,
                positives=positives.to(DEVICE),
            )
            torch.stack(list(found.values())).sum().backward()
            for key, value in expected.items():
                torch.testing.assert_close(found[key].to("cpu"), value, rtol=1e-6, atol=1e-7)
            torch.testing.assert_close(there.grad.to("cpu"), own.grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", LOSSES)
def test_a_diverged_network_is_not_hidden(name: str) -> None:
    logits, labels, quality, positives = problem(0)
    logits[5] = torch.nan
    with pretend_device():
        tensors = [x.to(DEVICE) for x in (logits, labels, quality)]
        found = LOSSES[name](*tensors, positives=positives.to(DEVICE))
        assert all(value.to("cpu").isnan() for value in found.values())


def test_tensors_of_two_devices() -> None:
    with pretend_device(), pytest.raises(RuntimeError, match="two devices"):
        torch.ones(3, device=DEVICE) + torch.ones(3)


def test_what_is_counted() -> None:
    with pretend_device() as device:
        x = torch.ones(4, 4, device=DEVICE)
        device.reset()
        assert (x + 1).view(16)[2:].sum().item() == 28
        assert x[x > 1].shape == (0,)
    assert (
        device.launches == {"add": 1, "sum": 1, "_local_scalar_dense": 1, "gt": 1, "index": 1} | {}
    )
    assert [name for name, _ in device.syncs] == ["_local_scalar_dense", "index"]


def test_copies_to_the_device_that_make_the_host_wait() -> None:
    with pretend_device() as device:
        x = torch.ones(2).to(DEVICE, non_blocking=True)
        assert device.uploads.total() == 0
        x.new_tensor([1.0, 2.0])
        torch.tensor(3, device=DEVICE)
        torch.ones(2).to(DEVICE)
        x.clone().to(torch.float64)
    assert device.uploads.total() == 3
