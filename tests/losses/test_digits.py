"""Logits in float32 and half precision lose no digits to rounding, whatever the others are.

Values and gradients of 10,000 random and adversarial inputs, and more in half precision, against
the dense definitions in float64 of the same numbers.
"""

from functools import cache

import pytest
import torch
from torch import Tensor

from tests.helpers.cases import TABLE, Case, random_case, run

OUTLIERS = torch.tensor([-1e5, -1e4, 1e4, 1e5], dtype=torch.float64)
SEEDS = {torch.float32: range(2000), torch.bfloat16: range(100), torch.float16: range(100)}


def geometric(x: Tensor, *_: object) -> Tensor:
    """Distances that grow without bounds, up to 1e5."""
    return -(4 * x.clamp(-3, 3)).exp()


def with_outliers(x: Tensor, generator: torch.Generator, *_: object) -> Tensor:
    """One logit in eight far away."""
    far = OUTLIERS[torch.randint(len(OUTLIERS), x.shape, generator=generator)]
    return far.where(torch.rand(x.shape, generator=generator) < 0.125, x)


def neighbors(x: Tensor, *_: object) -> Tensor:
    """Logits that differ in their last digits."""
    return (x * 4).round() / 128 - 1e5


def at_edges(x: Tensor, generator: torch.Generator, delta: float) -> Tensor:
    """Logits where the ramp of another one begins, has its middle, or ends."""
    other = x[torch.randperm(len(x), generator=generator)].float()
    return other + torch.randint(-1, 2, x.shape, generator=generator) * delta


KINDS = (geometric, with_outliers, neighbors, at_edges)


@cache
def adversarial_case(seed: int, dtype: torch.dtype) -> Case:
    """Change the logits of a random case, and round all numbers to `dtype`."""
    case, generator = random_case(seed), torch.Generator().manual_seed(seed)
    kind = KINDS[seed % len(KINDS)]
    ties = (case.logits * 2).round() / 2
    logits = kind(ties if seed % 3 == 0 else case.logits, generator, case.delta)
    largest = torch.finfo(dtype).max
    logits, quality, error = (
        x.clamp(-largest, largest).to(dtype).double() for x in (logits, case.quality, case.error)
    )
    name = f"{kind.__name__}, seed {seed}"
    return Case(name, logits, case.labels, quality, error, case.delta)


def tolerance(result: Tensor) -> float:
    """3e-5, and the rounding of a result in half precision."""
    return max(3e-5, torch.finfo(result.dtype).eps)


def check_digits(loss: str, case: Case, dtype: torch.dtype) -> None:
    values, gradients, _ = run(loss, case, dtype)
    expected, expected_gradients = TABLE[loss].reference(*case.arguments(loss), delta=case.delta)
    for term, value in expected.items():
        error = (values[term] - value).abs()
        assert error <= tolerance(values[term]) * (1 + value), (case.name, term)
    for term, gradient in gradients.items():
        error = (gradient.double() - expected_gradients[term]).abs().sum()
        allowed = tolerance(gradient) * expected_gradients[term].abs().sum()
        assert error <= allowed, (case.name, term)


@pytest.mark.parametrize("dtype", SEEDS, ids=str)
@pytest.mark.parametrize("loss", TABLE)
def test_digits(loss: str, dtype: torch.dtype) -> None:
    for seed in SEEDS[dtype]:
        check_digits(loss, adversarial_case(seed, dtype), dtype)


@pytest.mark.parametrize(
    ("loss", "largest"), [*((loss, 1e10) for loss in TABLE), ("bap", 1e38), ("brs", 1e38)]
)
def test_huge_logits(loss: str, largest: float) -> None:
    """One in eight; exact sums lose digits beyond 1e10, buckets with few positives never do."""
    for seed in range(100):
        case, generator = random_case(seed), torch.Generator().manual_seed(seed)
        far, size = torch.rand(2, len(case.logits), generator=generator, dtype=torch.float64)
        logits = case.logits.where(far > 0.125, (2 * size - 1) * largest).float().double()
        check_digits(loss, case._replace(name=f"seed {seed}", logits=logits), torch.float32)


@pytest.mark.parametrize("low", [-1e3, -1e5, -1e6])
@pytest.mark.parametrize("delta", [0.1, 0.5])
@pytest.mark.parametrize("loss", TABLE)
def test_one_low_positive(loss: str, delta: float, low: float) -> None:
    """The negatives of the top positive are in a cell that reaches down to it."""
    logits = torch.tensor([low, 0.0, -0.0513, -0.0871]).double()
    quality = torch.tensor([0.5, 0.875], dtype=torch.float64)
    case = Case(f"low {low}", logits, torch.tensor([1, 1, 0, 0]), quality, 1 - quality, delta)
    values, gradients, _ = run(loss, case, torch.float32)
    expected, expected_gradients = TABLE[loss].reference(*case.arguments(loss), delta=delta)
    for term, value in expected.items():
        assert abs(values[term] - value) < 1e-6, term
    for term, gradient in gradients.items():
        assert (gradient.double() - expected_gradients[term]).abs().max() < 1e-6, term
