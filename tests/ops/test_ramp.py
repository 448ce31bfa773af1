"""Prefix sums in a fixed order."""

import pytest
import torch

from brloss_d2.ops import ramp


@pytest.mark.parametrize("shape", [(0,), (1,), (2,), (9,), (10,), (1000,), (2, 37), (2, 3, 5)])
def test_blocked_cumsum(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(ramp._blocked_cumsum(x), x.cumsum(-1), rtol=0, atol=1e-12)


def test_blocked_cumsum_of_integers_is_exact():
    x = torch.arange(12_345)
    assert torch.equal(ramp._blocked_cumsum(x), x.cumsum(-1))


def test_a_gap_in_the_values_reaches_nothing_before_it():
    x = torch.ones(50)
    x[20] = torch.nan
    assert torch.equal(ramp._blocked_cumsum(x).isnan(), x.cumsum(-1).isnan())
