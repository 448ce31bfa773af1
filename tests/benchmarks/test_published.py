"""The published algorithms, as re-implemented for the benchmark, give the numbers of our losses."""

import pytest
import torch

from brloss_d2 import losses
from support import published
from support.problems import SOURCES, draw

PAIRS = {
    "ap_loop": (published.average_precision_loop, losses.ap_loss),
    "rs_loop": (published.rank_sort_loop, losses.rank_sort_loss),
    "brs_matrices": (published.bucketed_rank_sort_matrices, losses.bucketed_rank_sort_loss),
}
# One gradient of the published RS and BRS belongs to the sum of their terms.
TOLERANCE = {torch.float32: {"atol": 1e-5, "rtol": 1e-5}, torch.float64: {}}


def problem(source: str, seed: int, dtype: torch.dtype):
    logits, labels, quality = draw(source, 600, (0.002, 0.05, 0.5)[seed % 3], seed=seed)
    labels[draw(source, 600, 0.1, seed=seed + 1).labels == 1] *= -1  # ignore some, also positives
    labels[labels < 0] = -1
    # No ties, where the published bucketed form leaves the outcome to the sort.
    assert len(logits.unique()) == len(logits)
    return logits.to(dtype), labels, quality[: int((labels == 1).sum())].to(dtype)


def values_and_gradient(loss, logits, labels, quality, delta):
    logits = logits.clone().requires_grad_()
    terms = loss(logits, labels, quality, delta=delta)
    torch.stack(list(terms.values())).sum().backward()
    return {name: value.detach() for name, value in terms.items()}, logits.grad


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("source", SOURCES[:4])
@pytest.mark.parametrize("name", PAIRS)
def test_same_values_and_gradients(name, source, dtype):
    baseline, ours = PAIRS[name]
    for seed in range(6):
        inputs = problem(source, seed, dtype)
        if not (inputs[1] == 1).any():
            continue
        for delta in (0.0, 0.5, 1.0):
            values, gradient = values_and_gradient(baseline, *inputs, delta)
            expected, expected_gradient = values_and_gradient(ours, *inputs, delta)
            torch.testing.assert_close(values, expected, **TOLERANCE[dtype])
            torch.testing.assert_close(gradient, expected_gradient, **TOLERANCE[dtype])


@pytest.mark.parametrize("name", PAIRS)
def test_without_negatives(name):
    baseline, ours = PAIRS[name]
    logits = torch.tensor([0.5, -0.5, 0.1], dtype=torch.float64)
    inputs = (logits, torch.ones(3, dtype=torch.long), torch.tensor([0.6, 0.9, 0.2]).double(), 0.5)
    values, gradient = values_and_gradient(baseline, *inputs)
    expected, expected_gradient = values_and_gradient(ours, *inputs)
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(gradient, expected_gradient)
