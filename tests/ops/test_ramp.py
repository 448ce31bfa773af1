"""Ramp sums and prefix ramp sums against the dense definitions, and sums in a fixed order."""

import pytest
import torch

from brloss_d2.ops import dense, prefix_ramp_sum, ramp, ramp_sum
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


@pytest.mark.parametrize(
    "form", [ramp.prefix_ramp_sum_tiled, ramp.prefix_ramp_sum_wavelet, prefix_ramp_sum]
)
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
    torch.testing.assert_close(ramp.prefix_ramp_sum_tiled(t, prefix, v, weights, 0.5), expected)


@pytest.mark.parametrize("delta", [0.0, 0.5])
def test_ramp_sum(delta):
    t, _, v, weights = problem(90, 80, ties=True)
    expected = dense.ramp_sum(t, v, weights, delta)
    torch.testing.assert_close(ramp_sum(t, v, weights, delta), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("shape", [(0,), (1,), (1000,), (1, 9), (2, 37), (2, 3, 5)])
def test_running_sums_on_a_device(shape):
    support = pytest.importorskip("support.pretend_device", exc_type=ImportError)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with support.pretend_device() as device:
        found = ramp.running_sums(x.to(support.DEVICE)).to("cpu")
    assert torch.equal(found, x.cumsum(-1))
    assert device.launches["cumsum"] == 1


@pytest.mark.parametrize("delta", [0.0, 0.5])
def test_sums_from_a_table_of_pairs(delta):
    t, _, v, weights = problem(90, 80, ties=True)
    sums = PairSums.between(t, v, delta)
    expected = dense.ramp_sum(t, v, weights, delta)
    torch.testing.assert_close(sums.of_values(weights), expected, rtol=0, atol=1e-11)
    own = torch.linspace(-1, 1, len(t), dtype=t.dtype)
    expected = dense.ramp_sum(-v, -t, own, delta)
    torch.testing.assert_close(sums.of_thresholds(own), expected, rtol=0, atol=1e-11)
    half = sums.where(torch.arange(len(v))[:, None] < len(v) // 2)
    expected = dense.ramp_sum(t, v[: len(v) // 2], weights[..., : len(v) // 2], delta)
    torch.testing.assert_close(half.of_values(weights), expected, rtol=0, atol=1e-11)
