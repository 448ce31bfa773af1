"""The report on the error of bucketing."""

import pytest
import torch

import bucketing
from bucketing import Cost
from support.problems import SYNTHETIC, Problem, draw


def test_gradient_error_by_hand():
    """One positive at 0 and negatives at 0.25 and -0.25, delta 0.5: H is 3/4 and 1/4.

    The positives' bucket boundaries separate them, so that bucketing is exact; with both below
    the positive, at -0.1 and -0.3, H is 0.4 and 0.2, and the bucket gives 0.3 to each.
    """
    labels, quality = torch.tensor([1, 0, 0]), torch.tensor([0.5])
    apart = Problem(torch.tensor([0.0, 0.25, -0.25]), labels, quality)
    assert bucketing.gradient_error(apart, 0.5) == pytest.approx(0, abs=1e-6)
    together = Problem(torch.tensor([0.0, -0.1, -0.3]), labels, quality)
    expected = (0.1**2 + 0.1**2) ** 0.5 / (0.4**2 + 0.2**2) ** 0.5
    assert bucketing.gradient_error(together, 0.5) == pytest.approx(expected, rel=1e-5)


def test_gradient_error_without_a_gradient():
    problem = Problem(torch.tensor([5.0, 0.0]), torch.tensor([1, 0]), torch.tensor([0.5]))
    assert bucketing.gradient_error(problem, 0.5) is None


def test_error_falls_with_the_number_of_positives():
    few, many = (
        [bucketing.gradient_error(draw(SYNTHETIC, 2000, p, seed=s), 0.5) for s in range(5)]
        for p in (0.001, 0.25)
    )
    assert min(few) > 0.05 > 0.02 > max(many)


def test_recommendation_follows_from_the_cost():
    errors = {(SYNTHETIC, 0.5, 1): [0.2, 0.25, 0.3], (SYNTHETIC, 0.5, 100): [0.01]}
    cheap, dear = ([Cost(SYNTHETIC, 1, exact, 1.0)] for exact in (1.2, 9.0))
    assert bucketing.recommend(errors, cheap).startswith("**Use `rs`.**")
    assert "1.0% to 25%" in bucketing.recommend(errors, cheap)
    assert "`brs` for speed" in bucketing.recommend(errors, dear)


def test_quick_report(tmp_path, capsys):
    assert bucketing.main(["--quick", "--output", str(tmp_path)]) == 0
    report = (tmp_path / "bucketing.md").read_text()
    assert "**Use `rs`" in report and "{" not in report
    for count in bucketing.QUICK.positives:
        assert f"\n|{count:12d} |" in report
    assert (tmp_path / "images" / "bucketing.png").read_bytes().startswith(b"\x89PNG")
    assert "bucketing.md" in capsys.readouterr().out
