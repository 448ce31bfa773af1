"""Triton kernels of deformable sampling against the PyTorch implementation.

`test_ms_deform_triton.py` runs this file in processes of its own, as tests/ops/test_triton.py does
with the kernels of the losses, and for the same reason.
"""

import os

import pytest
import torch

from brloss_d2.projects.co_detr.layers.ms_deform_attn import ms_deform_sample
from tests.projects.co_detr.ms_deform_reference import random_problem, values_and_gradients

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
EXACT = {torch.float64: 1e-12, torch.float32: 2e-5}


def sample(backend):
    return lambda problem: ms_deform_sample(*problem, backend=backend)


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"n": 1, "heads": 1, "channels": 1, "points": 1, "queries": 1},
        {"n": 1, "shapes": ((4, 3),), "heads": 2, "channels": 8, "queries": 40},
    ],
    ids=str,
)
def test_sampling_and_its_gradients(sizes, dtype):
    problem = random_problem(**sizes).to(DEVICE, dtype)
    found = values_and_gradients(sample("triton"), problem)
    expected = values_and_gradients(sample("torch"), problem)
    for x, y in zip(found, expected, strict=True):
        assert x.dtype == dtype
        torch.testing.assert_close(x, y, rtol=0, atol=EXACT[dtype] * y.abs().max().item())


def test_points_at_the_centers_of_cells_and_one_cell_outside():
    """At points where slopes jump, both take the same side."""
    problem = random_problem(shapes=((4, 4), (2, 2)))
    sizes = torch.tensor([[4.0], [2.0]])[:, :, None]
    cells = (problem.locations * sizes).round().clamp(-1, 5)
    problem = problem._replace(locations=(cells - 0.5) / sizes).to(DEVICE)
    found = values_and_gradients(sample("triton"), problem)
    expected = values_and_gradients(sample("torch"), problem)
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


def test_nan_shows():
    problem = random_problem().to(DEVICE)
    problem.locations[0, 0, 0, 0, 0, 0] = torch.nan
    out = sample("triton")(problem).unflatten(2, (3, -1))
    assert out[0, 0, 0].isnan().all()
    assert out.isnan().sum() == out.shape[-1]


def test_no_queries():
    problem = random_problem(queries=0).to(DEVICE)
    out, by_value, *_ = values_and_gradients(sample("triton"), problem)
    assert out.shape == (2, 0, 15)
    assert not by_value.any()
