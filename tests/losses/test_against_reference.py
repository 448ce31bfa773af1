"""2,000 random cases per loss against the dense float64 definitions."""

import pytest
import torch

from tests.helpers.cases import TABLE, random_case, run

SEEDS = range(2000)
REPORTED = ("P = 0", "N = 0", "ties", "ignored")


@pytest.mark.parametrize("loss", TABLE)
def test_random_cases(loss):
    for seed in SEEDS:
        case = random_case(seed)
        values, gradients, error_gradient = run(loss, case)
        expected_values, expected_gradients = TABLE[loss].reference(
            *case.arguments(loss), delta=case.delta
        )
        for name, value in expected_values.items():
            assert abs(values[name] - value) < 1e-9, (case.name, name)
        for term, gradient in gradients.items():
            torch.testing.assert_close(
                gradient, expected_gradients[term], rtol=0, atol=1e-9, msg=case.name
            )
        if error_gradient is not None:
            torch.testing.assert_close(error_gradient, expected_gradients["loss_box"])


def test_the_random_cases_cover_the_edges():
    seen = dict.fromkeys(REPORTED, 0)
    for seed in SEEDS:
        labels, logits = random_case(seed).labels, random_case(seed).logits
        seen["P = 0"] += not (labels == 1).any()
        seen["N = 0"] += not (labels == 0).any()
        seen["ignored"] += bool((labels == -1).any())
        seen["ties"] += len(logits.unique()) < len(logits)
    assert min(seen.values()) > 100, seen
