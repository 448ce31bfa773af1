"""Ramp sums and prefix ramp sums against the dense definitions, and sums in a fixed order."""

import pytest
import torch

from brloss_d2.ops import dense, prefix_ramp_sum, ramp, ramp_sum
from brloss_d2.ops.dispatch import RampSums
from brloss_d2.ops.pairs import PairSums


def problem(values: int, thresholds: int, *, ties: bool, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    v = torch.randn(values, generator=g, dtype=torch.float64) * 2
    t = torch.randn(thresholds, generator=g, dtype=torch.float64) * 2
    if ties:
        v, t = (v * 4).round() / 4, (t * 4).round() / 4
    prefix = torch.randint(0, values + 1, (thresholds,), generator=g)
    weights = torch.rand(2, values, generator=g, dtype=torch.float64)
    return t, prefix, v, weights


@pytest.mark.parametrize("form", [ramp.prefix_ramp_sum_wavelet, prefix_ramp_sum])
@pytest.mark.parametrize("delta", [0.0, 0.25, 5.0])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    "sizes", [(0, 3), (1, 1), (2, 5), (7, 0), (64, 64), (100, 257), (1000, 300)]
)
def test_prefix_ramp_sum(form, delta, ties, sizes):
    t, prefix, v, weights = problem(*sizes, ties=ties)
    expected = dense.prefix_ramp_sum(t, prefix, v, weights, delta)
    for w, e in ((weights, expected), (weights[0], expected[0])):
        torch.testing.assert_close(form(t, prefix, v, w, delta), e, rtol=0, atol=1e-11)


def test_tiles_cover_all_thresholds(monkeypatch):
    monkeypatch.setattr(ramp, "_TILE_PAIRS", {"cpu": 300})
    t, prefix, v, weights = problem(100, 257, ties=False)
    expected = dense.prefix_ramp_sum(t, prefix, v, weights, 0.5)
    torch.testing.assert_close(ramp.prefix_ramp_sum_wavelet(t, prefix, v, weights, 0.5), expected)


@pytest.mark.parametrize("delta", [0.0, 0.5])
def test_ramp_sum(delta):
    t, _, v, weights = problem(90, 80, ties=True)
    expected = dense.ramp_sum(t, v, weights, delta)
    torch.testing.assert_close(ramp_sum(t, v, weights, delta), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("shape", [(0,), (1,), (1000,), (1, 9), (2, 37), (2, 3, 5)])
def test_prefix_sums_on_a_device(shape):
    support = pytest.importorskip("support.pretend_device", exc_type=ImportError)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with support.pretend_device() as device:
        found = ramp.prefix_sums(x.to(support.DEVICE)).to("cpu")
    assert torch.equal(found, torch.nn.functional.pad(x.cumsum(-1), (1, 0)))
    assert device.launches["cumsum"] == 1


@pytest.mark.parametrize("delta", [0.0, 0.5])
@pytest.mark.parametrize("form", [PairSums.between, RampSums])
def test_sums_between_numbers(form, delta):
    t, _, v, weights = problem(90, 80, ties=True)
    sums = form(t, v, delta)
    expected = dense.ramp_sum(t, v, weights, delta)
    torch.testing.assert_close(sums.of_values(weights), expected, rtol=0, atol=1e-11)
    expected = dense.ramp_sum(t, v, torch.ones_like(v), delta)
    torch.testing.assert_close(sums.of_ones(), expected, rtol=0, atol=1e-11)
    own = torch.linspace(-1, 1, len(t), dtype=t.dtype)
    expected = dense.ramp_sum(-v, -t, own, delta)
    torch.testing.assert_close(sums.of_thresholds(own), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("delta", [0.0, 0.5])
@pytest.mark.parametrize("form", [PairSums.between, RampSums])
def test_sums_over_the_worse(form, delta):
    t, quality, _, weights = problem(80, 80, ties=True)
    quality = (quality / 20).round()
    table = dense.ramp(t[:, None] - t, delta) * (quality[:, None] < quality)
    sums = form(t, t, delta).of_worse(quality)
    torch.testing.assert_close(sums.of_values(weights), weights @ table, rtol=0, atol=1e-11)
    own = torch.linspace(-1, 1, len(t), dtype=t.dtype)
    torch.testing.assert_close(sums.of_thresholds(own), table @ own, rtol=0, atol=1e-11)
