"""Losses of the first iterations of every quick config: those that were recorded.

A failure says that training has changed. If that was meant, `python -m tests.curves.record` writes
the curves again (README.md here).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.curves.record import ITERATIONS, configs, machine, read, record

MACHINE, CURVES = read()
SAME = machine() == MACHINE
# With other rounding, assignments and samples differ after few iterations.
FIRST = 20 if SAME else 3


@pytest.fixture
def assert_as_recorded(tmp_path: Path) -> Callable[..., None]:
    def check(name: str, iterations: int) -> None:
        curve = record(configs()[name], tmp_path, iterations)
        np.testing.assert_allclose(curve, CURVES[name][:iterations], rtol=1e-4)

    return check


def test_every_quick_config_has_a_curve() -> None:
    assert sorted(CURVES) == sorted(configs())
    assert all(len(curve) == ITERATIONS for curve in CURVES.values())


@pytest.mark.parametrize("name", CURVES)
def test_first_iterations(assert_as_recorded: Callable[..., None], name: str) -> None:
    assert_as_recorded(name, FIRST)


@pytest.mark.nightly
@pytest.mark.skipif(not SAME, reason=f"recorded on {MACHINE}")
@pytest.mark.parametrize("name", CURVES)
def test_all_iterations(assert_as_recorded: Callable[..., None], name: str) -> None:
    assert_as_recorded(name, ITERATIONS)
