"""Triton kernels against the dense definitions and the PyTorch back-end.

`test_triton.py` runs this file in processes of its own: through Triton's interpreter on a CPU, and
compiled where there is a GPU. TRITON_INTERPRET counts when a kernel is defined, hence for a whole
process.
"""

import os

import pytest
import torch

from brloss_d2.losses import base
from brloss_d2.ops import cells, dense, use_backend
from brloss_d2.ops.dispatch import accumulate
from brloss_d2.ops.triton import cells as cells_triton
from brloss_d2.ops.triton import ramp as ramp_triton
from tests.helpers.cases import TABLE, Case, golden_cases, random_case, run

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


def cells_problem(size: int, edges: int, dtype: torch.dtype, *, ties: bool = False, seed: int = 0):
    """Arguments of `accumulate`, with logits near 3; a third of the labels each."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, generator=g, dtype=torch.float64) * 2 + 3
    left = torch.randn(edges, generator=g, dtype=torch.float64).sort().values * 2 + 3
    if ties:
        logits, left = (logits * 4).round() / 4, (left * 4).round() / 4
    labels = torch.randint(-1, 2, (size,), generator=g)
    return [x.to(DEVICE) for x in (logits.to(dtype), labels, left)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("size", "edges"), [(1, 1), (5, 2), (700, 1), (1025, 3), (3000, 65)])
def test_cells(size, edges, ties, dtype):
    problem = cells_problem(size, edges, dtype, ties=ties)
    lines = torch.rand(2, edges + 1, dtype=torch.float64, device=DEVICE)
    lines[:, 0] = 0
    found = cells_triton.accumulate(*problem)
    for form in (dense.accumulate, cells.accumulate):
        expected = form(*problem)
        exact = 1e-12 if dtype == torch.float64 else 1e-6
        assert torch.equal(found.sums[0], expected.sums[0])
        torch.testing.assert_close(found.sums, expected.sums, rtol=exact, atol=exact)
        for functions in (lines[:1], lines):
            assert found.write(functions).dtype == dtype
            torch.testing.assert_close(found.write(functions), expected.write(functions))


def test_the_last_cell_needs_no_bound():
    logits = torch.tensor([0.5, 2.0, 1e30, 1e30], device=DEVICE)
    labels = torch.tensor([0, 0, 0, 1], device=DEVICE)
    edges = torch.tensor([0.0, 1.0], dtype=torch.float64, device=DEVICE)
    found = cells_triton.accumulate(logits, labels, edges)
    assert found.sums.tolist() == [[0, 1, 2], [0, 0.5, float(logits[2].double())]]


def test_fixed_point_adapts_to_each_cell():
    """A wide cell must not cost a narrow one its digits, nor a tie divide by 0."""
    edges = torch.tensor([0.0, 1e-20, 1e-20, 1.0, 1e20], dtype=torch.float64, device=DEVICE)
    logits = torch.tensor([2e-21, 3e-21, 0.25, 0.5, 3e19, 9e19], device=DEVICE)
    labels = torch.zeros(6, dtype=torch.long, device=DEVICE)
    found = cells_triton.accumulate(logits, labels, edges)
    expected = torch.tensor([0.0, 5e-21, 0.0, 0.75, 1.2e20, 0.0], dtype=torch.float64)
    assert found.sums[0].tolist() == [0, 2, 0, 2, 2, 0]
    torch.testing.assert_close(found.sums[1].cpu(), expected, rtol=1e-6, atol=0)


def test_the_same_bits_in_any_order():
    problem = cells_problem(5000, 9, torch.float32)
    shuffle = torch.randperm(5000, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    first = cells_triton.accumulate(*problem)
    again = cells_triton.accumulate(problem[0][shuffle], problem[1][shuffle], *problem[2:])
    assert torch.equal(first.sums[0], again.sums[0])
    # All but the last cell are sums of integers.
    assert torch.equal(first.sums[:, :-1], again.sums[:, :-1])


@pytest.mark.parametrize("copied", [1, 40])
def test_copies_of_the_cells_add_up(copied, monkeypatch):
    monkeypatch.setattr(cells_triton, "_COPIED_CELLS", copied)
    monkeypatch.setattr(cells_triton, "_BLOCK", 64)
    problem = cells_problem(1000, 10, torch.float64)
    found, expected = cells_triton.accumulate(*problem), dense.accumulate(*problem)
    assert torch.equal(found.sums[0], expected.sums[0])
    torch.testing.assert_close(found.sums, expected.sums, rtol=1e-12, atol=1e-12)


def test_strided_arguments_and_small_labels():
    logits, labels, edges = cells_problem(2000, 5, torch.float32)
    strided = logits.repeat_interleave(2)[::2], labels.to(torch.int8).repeat_interleave(2)[::2]
    found = cells_triton.accumulate(*strided, edges)
    assert torch.equal(found.sums[0], dense.accumulate(logits, labels, edges).sums[0])


@pytest.mark.parametrize("delta", [0.0, 0.3])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("sizes", [(0, 3), (1, 1), (7, 0), (33, 65), (300, 130)])
def test_prefix_ramp_sum(sizes, ties, delta):
    g = torch.Generator().manual_seed(0)
    v, t = (torch.randn(n, generator=g, dtype=torch.float64) * 2 for n in sizes)
    if ties:
        v, t = (v * 4).round() / 4, (t * 4).round() / 4
    prefix = torch.randint(0, len(v) + 1, (len(t),), generator=g)
    weights = torch.rand(2, len(v), generator=g, dtype=torch.float64)
    t, prefix, v, weights = (x.to(DEVICE) for x in (t, prefix, v, weights))
    for w in (weights, weights[0]):
        expected = dense.prefix_ramp_sum(t, prefix, v, w, delta)
        found = ramp_triton.prefix_ramp_sum(t, prefix, v, w, delta)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    expected = dense.ramp_sum(t, v, weights, delta)
    torch.testing.assert_close(
        ramp_triton.ramp_sum(t, v, weights, delta), expected, rtol=0, atol=1e-12
    )


def on_device(case: Case) -> Case:
    return Case(*(x.to(DEVICE) if isinstance(x, torch.Tensor) else x for x in case))


def edge_cases() -> list[Case]:
    """No positives, no negatives, nothing, everything ignored, all tied; each delta."""
    cases = []
    for delta in (0.0, 0.5):
        for name, labels in {
            "P = 0": [0, 0, -1],
            "N = 0": [1, 1, -1],
            "empty": [],
            "ignored": [-1, -1],
            "tied": [1, 0, 1, 0, 0],
        }.items():
            y = torch.linspace(0, 1, labels.count(1), dtype=torch.float64)
            logits = torch.full((len(labels),), 0.5, dtype=torch.float64)
            cases.append(Case(name, logits, torch.tensor(labels, dtype=torch.long), y, y, delta))
    return cases


def check_losses(case: Case, dtype: torch.dtype, tolerance: float) -> None:
    """Values and gradients of all losses: Triton's against PyTorch's."""
    for loss in TABLE:
        with use_backend("torch"):
            values, gradients, _ = run(loss, case, dtype)
        with use_backend("triton"):
            found_values, found_gradients, _ = run(loss, on_device(case), dtype)
        for term, value in values.items():
            torch.testing.assert_close(found_values[term].cpu(), value, rtol=0, atol=tolerance)
        for term, gradient in gradients.items():
            found = found_gradients[term].cpu()
            torch.testing.assert_close(found, gradient, rtol=0, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("case", edge_cases(), ids=lambda c: f"{c.name}, delta {c.delta}")
def test_edge_cases_of_the_losses(case):
    check_losses(case, torch.float64, 1e-11)


@pytest.mark.parametrize("seed", range(12))
def test_losses(seed):
    check_losses(random_case(seed), torch.float64, 1e-11)


@pytest.mark.parametrize("seed", range(4))
def test_losses_put_together(seed, monkeypatch):
    """As those of several processes are, from the passes over the logits and sums of pairs."""
    monkeypatch.setattr(base, "fused", lambda *_, **__: None)
    check_losses(random_case(seed), torch.float64, 1e-11)


@pytest.mark.parametrize("number", range(0, 87, 9))
def test_golden_cases(number):
    case = golden_cases()[number].case
    if len(case.logits) < 5000:
        check_losses(case, torch.float32, 1e-5)


def test_broken_logits_show():
    case = on_device(random_case(3))
    case.logits[case.labels == 0] = torch.nan
    with use_backend("triton"):
        values, gradients, _ = run("rs", case)
    assert all(v.isnan() for v in values.values())
    assert gradients["loss_rank"].isnan().any()


def test_dispatch_reaches_the_kernels(monkeypatch):
    problem = cells_problem(10, 2, torch.float32)
    monkeypatch.setattr(cells_triton, "accumulate", lambda *_: "kernel")
    with use_backend("triton"):
        assert accumulate(*problem) == "kernel"
    with use_backend("torch"):
        assert accumulate(*problem) != "kernel"
    with use_backend("auto"):
        assert (accumulate(*problem) == "kernel") == (DEVICE == "cuda")


def test_one_host_sync():
    """`nonzero`, which finds the positives, is the only thing to wait for."""
    if DEVICE == "cpu":
        pytest.skip("needs a GPU")
    case = on_device(random_case(3))
    with use_backend("triton"):
        run("rs", case)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with pytest.warns(UserWarning, match="synchronizing") as found:
                TABLE["rs"].function(*case.arguments("rs"), delta=case.delta)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert len([w for w in found if "synchronizing" in str(w.message)]) == 1


def test_the_same_bits_twice():
    g = torch.Generator().manual_seed(0)
    size = 200_000 if DEVICE == "cuda" else 3000
    labels = (torch.rand(size, generator=g) < 0.1).long().to(DEVICE)
    quality = torch.rand(int(labels.sum()), generator=g).to(DEVICE)
    logits = torch.randn(size, generator=g).to(DEVICE)
    results = []
    for _ in range(2):
        leaf = logits.clone().requires_grad_()
        with use_backend("triton"):
            terms = TABLE["rs"].function(leaf, labels, quality)
        sum(terms.values()).backward()
        results.append((torch.stack([*terms.values()]).detach(), leaf.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
