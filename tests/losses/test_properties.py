"""What holds for every ranking loss, whatever its numbers."""

import pytest
import torch

from brloss_d2.ops import pairs, ramp
from tests.helpers.cases import TABLE, Case, golden_cases, random_case, run


def usual_case(seed: int = 0, positives: int = 40, negatives: int = 400) -> Case:
    g = torch.Generator().manual_seed(seed)
    labels = torch.tensor([1] * positives + [0] * negatives + [-1] * 20)
    labels = labels[torch.randperm(len(labels), generator=g)]
    logits = torch.randn(len(labels), generator=g, dtype=torch.float64) + (labels == 1)
    quality = torch.rand(positives, generator=g, dtype=torch.float64)
    error = torch.rand(positives, generator=g, dtype=torch.float64)
    return Case("usual", logits, labels, quality, error, 0.5)


def total_gradient(loss: str, case: Case) -> torch.Tensor:
    return sum(run(loss, case)[1].values())


@pytest.mark.parametrize("loss", TABLE)
class TestEveryLoss:
    def test_module_equals_function(self, loss):
        case = usual_case()
        module = TABLE[loss].module(delta=0.75)
        expected = TABLE[loss].function(*case.arguments(loss), delta=0.75)
        assert module(*case.arguments(loss)) == expected
        assert "0.75" in repr(module)

    def test_classes_of_rows(self, loss):
        """Beside (R, K) logits they are the labels of all decisions."""
        rows, classes = torch.tensor([2, 3, -1, 0, 3, 1, 2, 2]), torch.arange(3)
        labels = (rows[:, None] == classes).int().masked_fill(rows[:, None] < 0, -1).flatten()
        case = usual_case(positives=5, negatives=19)
        logits, values = case.logits[:24].requires_grad_(), case.arguments(loss)[2:]
        expected = TABLE[loss].function(logits, labels, *values, delta=0.5)
        (gradient,) = torch.autograd.grad(sum(expected.values()), logits)
        matrix = logits.detach().view(8, 3).requires_grad_()
        found = TABLE[loss].function(matrix, rows, *values, delta=0.5)
        assert found == expected
        assert torch.equal(torch.autograd.grad(sum(found.values()), matrix)[0], gradient.view(8, 3))
        with pytest.raises(ValueError, match=r"a class of 0\.\.2, 3 \(background\)"):
            TABLE[loss].function(matrix, rows + 1, *values, delta=0.5)

    def test_gradient_sums_to_zero_and_spares_ignored(self, loss):
        case = usual_case()
        for gradient in run(loss, case)[1].values():
            assert gradient.abs().max() > 1e-4
            assert abs(gradient.sum()) < 1e-12
            assert not gradient[case.labels == -1].any()

    def test_shift_invariance(self, loss):
        case = usual_case()
        moved = case._replace(logits=case.logits + 3.25)
        torch.testing.assert_close(total_gradient(loss, moved), total_gradient(loss, case))

    def test_permutation_invariance(self, loss):
        case = usual_case()
        order = torch.randperm(len(case.logits), generator=torch.Generator().manual_seed(1))
        labels = case.labels[order]
        # The positives come in another order too, and their numbers with them.
        number = (case.labels == 1).cumsum(0) - 1
        mine = number[order][labels == 1]
        mixed = case._replace(
            logits=case.logits[order],
            labels=labels,
            quality=case.quality[mine],
            error=case.error[mine],
        )
        torch.testing.assert_close(total_gradient(loss, mixed), total_gradient(loss, case)[order])

    def test_each_term_has_its_own_upstream_gradient(self, loss):
        case = usual_case()
        _, gradients, _ = run(loss, case)
        logits = case.logits.clone().requires_grad_()
        out = TABLE[loss].function(logits, *case.arguments(loss)[1:], delta=case.delta)
        weights = dict(zip(gradients, (3.7, -0.5), strict=False))
        sum(weights[t] * out[t] for t in gradients).backward()
        expected = sum(weights[t] * gradients[t] for t in gradients)
        torch.testing.assert_close(logits.grad, expected)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_upcast(self, loss, dtype):
        case = usual_case()
        rounded = case._replace(logits=case.logits.to(dtype).double())
        expected = run(loss, rounded)
        logits = case.logits.to(dtype).requires_grad_()
        out = TABLE[loss].function(logits, *case.arguments(loss)[1:], delta=case.delta)
        sum(out[t] for t in TABLE[loss].terms).backward()
        assert out["loss_rank"].dtype == torch.float32
        assert logits.grad.dtype == dtype
        torch.testing.assert_close(out["loss_rank"].double(), expected[0]["loss_rank"])
        torch.testing.assert_close(
            logits.grad.double(), sum(expected[1].values()), rtol=1e-2, atol=1e-6
        )

    @pytest.mark.parametrize("keep", ["nothing", "negatives", "positives", "ignored"])
    def test_nothing_to_learn_is_an_attached_zero(self, loss, keep):
        labels = {
            "nothing": [],
            "negatives": [0, 0, 0],
            "positives": [1, 1],
            "ignored": [-1, -1, -1],
        }[keep]
        logits = torch.linspace(-1, 1, len(labels)).requires_grad_()
        extra = torch.full((labels.count(1),), 0.7)
        out = TABLE[loss].function(logits, torch.tensor(labels, dtype=torch.long), extra)
        sum(out.values()).backward()
        assert out["loss_rank"] == 0
        assert logits.grad.shape == logits.shape
        assert not logits.grad.any()

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("label", [1, 0])
    def test_non_finite_logits_are_not_hidden(self, loss, bad, label):
        case = usual_case()
        logits = case.logits.clone()
        logits[(case.labels == label).nonzero()[0]] = bad
        values, gradients, _ = run(loss, case._replace(logits=logits))
        assert all(values[t].isnan() for t in gradients)
        assert all(g.isnan().any() for g in gradients.values())

    def test_non_finite_logits_without_positives(self, loss):
        logits = torch.tensor([0.0, float("nan")], requires_grad=True)
        out = TABLE[loss].function(logits, torch.zeros(2, dtype=torch.long), torch.zeros(0))
        assert out["loss_rank"].isnan()

    def test_wrong_arguments(self, loss):
        logits, labels = torch.zeros(4), torch.tensor([1, 0, 0, 1])
        quality = torch.ones(2)
        function = TABLE[loss].function
        with pytest.raises(ValueError, match=r"flatten \(R, K\) logits"):
            function(logits.view(2, 2), labels.view(2, 2), quality)
        with pytest.raises(ValueError, match="logits must be a floating point"):
            function(logits.long(), labels, quality)
        with pytest.raises(ValueError, match="labels must be integers"):
            function(logits, labels[:3], quality)
        with pytest.raises(ValueError, match="labels must be integers"):
            function(logits, labels.float(), quality)
        with pytest.raises(ValueError, match="each of the 2 positives"):
            function(logits, labels, torch.ones(3))
        with pytest.raises(ValueError, match="delta must be a finite number >= 0"):
            TABLE[loss].module(delta=-1.0)


@pytest.mark.parametrize(("exact", "bucketed"), [("rs", "brs")])
def test_bucketed_equals_exact_without_smoothing(exact, bucketed):
    for case in (usual_case()._replace(delta=0.0), *(g.case for g in golden_cases())):
        if case.delta == 0:
            assert run(exact, case)[0] == run(bucketed, case)[0]


def test_means_that_round_onto_the_next_positive():
    """Three times 0.1 sum up to more than 0.3: the mean would be the positive just above."""
    just_above = torch.tensor(0.1, dtype=torch.float64).nextafter(torch.tensor(1.0).double())
    logits = torch.tensor([0.0, 0.1, 0.1, 0.1, just_above], dtype=torch.float64)
    labels = torch.tensor([1, 0, 0, 0, 1])
    out = TABLE["bap"].function(logits.requires_grad_(), labels, delta=0.0)
    torch.testing.assert_close(out["loss_rank"].item(), (3 / 5 + 0) / 2)


def test_a_positive_of_quality_zero_stays_a_positive():
    logits = torch.tensor([0.0, 1.0], requires_grad=True)
    labels, quality = torch.tensor([1, 0]), torch.zeros(1)
    out = TABLE["rs"].function(logits, labels, quality)
    out["loss_rank"].backward()
    assert out["loss_rank"] > 0.5
    assert logits.grad[0] < 0 < logits.grad[1]


@pytest.mark.parametrize("loss", ["rs", "brs"])
def test_wavelet_form_gives_the_same(loss, monkeypatch):
    monkeypatch.setattr(pairs, "_MAX_NUMBERS", {"cpu": 0})
    called = []

    def counted(*args):
        called.append(1)
        return wavelet(*args)

    wavelet = ramp.prefix_ramp_sum_wavelet
    monkeypatch.setattr(ramp, "prefix_ramp_sum_wavelet", counted)
    for seed in range(50):
        case = random_case(seed)
        _, gradients, _ = run(loss, case)
        _, expected = TABLE[loss].reference(*case.arguments(loss), delta=case.delta)
        for term, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[term], rtol=0, atol=1e-9)
    assert called
