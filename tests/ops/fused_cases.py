"""Whole losses as Triton kernels against their dense definitions in float64.

Random and golden cases of the losses are in `triton_cases.py`.
`test_triton.py` runs this file in processes of its own; `triton_cases.py` says why.
"""

import os

import pytest
import torch
from torch import Tensor

from brloss_d2.losses import reference
from brloss_d2.losses.alrp import MIN_FALSE_POSITIVES
from brloss_d2.losses.rank_sort import SORT_MIN_MASS
from brloss_d2.ops.triton import cells, fused
from support.machine import MIB
from support.timing import peak_memory
from tests.helpers.cases import Case

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
LOSSES = {
    "ap": (reference.ap, dict(kind="interpolated")),
    "bap": (reference.bap, dict(kind="precision", bucketed=True)),
    "alrp": (reference.alrp, dict(kind="localize", floor=MIN_FALSE_POSITIVES)),
    "rs": (reference.rank_sort, dict(kind="sort", floor=SORT_MIN_MASS)),
    "brs": (reference.bucketed_rank_sort, dict(kind="sort", bucketed=True, floor=SORT_MIN_MASS)),
}


@pytest.fixture(autouse=True)
def large_tiles(monkeypatch):
    """The interpreter takes its time per operation, not per number."""
    if DEVICE == "cpu":
        monkeypatch.setattr(cells, "_BLOCK", 128)
        monkeypatch.setattr(fused, "_ROWS", 64)
        monkeypatch.setattr(fused, "_COLUMNS", 128)


def run(loss: str, case: Case, labels: Tensor | None = None, shape: tuple[int, ...] = (-1,)):
    """Values, and their gradients of the logits, or of the errors for the box component."""
    logits, _, *others = (x.to(DEVICE) for x in case.arguments(loss))
    logits = logits.view(shape).requires_grad_()
    values = others[0].requires_grad_(loss == "alrp") if others else None
    ones = (case.labels == 1).nonzero().squeeze(1)
    positives = ones.repeat_interleave(2).to(DEVICE)[::2]  # not contiguous
    labels = (case.labels if labels is None else labels).to(DEVICE)
    _, options = LOSSES[loss]
    found = fused.compute(
        logits=logits, labels=labels, positives=positives, qualities=values, delta=case.delta,
        **options,
    )  # fmt: skip
    inputs = [logits, values if loss == "alrp" else logits]
    gradients = [
        torch.autograd.grad(value, x, retain_graph=True)[0].flatten()
        for value, x in zip(found.values(), inputs, strict=False)
    ]
    return [x.detach().cpu() for x in found.values()], [x.cpu() for x in gradients]


def check(loss: str, case: Case, tolerance: float, **arguments) -> None:
    """Compare with the definition in float64, on the same numbers."""
    values, gradients = run(loss, case, **arguments)
    double = Case(*(x.double() if i in (1, 3, 4) else x for i, x in enumerate(case)))
    expected, expected_gradients = LOSSES[loss][0](*double.arguments(loss), delta=case.delta)
    real = torch.promote_types(case.logits.dtype, torch.float32)
    for value, gradient, term in zip(values, gradients, expected, strict=True):
        assert value.dtype == real or term == "loss_box"
        assert gradient.dtype == case.logits.dtype or term == "loss_box"
        pairs = (value, expected[term]), (gradient, expected_gradients[term])
        for ours, others in pairs:  # one rounding to half precision, none else
            rounding = torch.finfo(ours.dtype).eps if ours.dtype.itemsize == 2 else 0
            torch.testing.assert_close(ours.double(), others, rtol=rounding, atol=tolerance)


def adversarial(name: str, dtype: torch.dtype) -> Case:
    """Scores of a kind, 40 positives among 300 logits: no multiples of a tile or a block."""
    g = torch.Generator().manual_seed(len(name))
    size = 300
    labels = torch.full((size,), 0)
    labels[torch.randperm(size, generator=g)[:60]] = torch.tensor([1] * 40 + [-1] * 20)
    logits, delta = 2 * torch.randn(size, generator=g, dtype=torch.float64), 0.5
    if name == "outliers":  # of both kinds and on both sides
        logits[torch.randperm(size, generator=g)[:8]] = 1e5
        logits[labels == 1] = torch.where(torch.arange(40) % 13 == 0, -1e5, logits[labels == 1])
    elif name == "edges hit":
        logits = logits.mul(4).round() / 4
    elif name == "all tied":
        logits = torch.full_like(logits, 0.3)
    elif name == "geometric":
        logits = -(2 * logits).exp()
    elif name == "rounded edges":
        delta = 0.3
        logits[labels == 0] = (logits[labels == 1].float().double() + 0.3).repeat(6)
    elif name == "exact comparison":
        logits, delta = logits.mul(4).round() / 4, 0.0
    elif name == "all positive":
        labels = torch.ones_like(labels)
    elif name == "one positive":
        labels[(labels == 1).nonzero()[1:]] = 0
    quality = torch.rand(int((labels == 1).sum()), generator=g, dtype=torch.float64)
    quality = quality.mul(8).round() / 8 if name != "outliers" else quality
    parts = logits.to(dtype), labels, quality.to(dtype), 2 * quality.to(dtype)
    return Case(name, *parts, delta)


SCORES = (
    *("plain", "outliers", "edges hit", "all tied", "geometric", "rounded edges"),
    *("exact comparison", "all positive", "one positive"),
)
# float32: 1e-6 where positives and negatives balance; the sums of float64 are exact.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-6, torch.float16: 1e-6, torch.bfloat16: 1e-6}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scores", SCORES)
def test_adversarial_scores(scores, dtype, loss):
    check(loss, adversarial(scores, dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, loss):
    """Read as they are, and rounded once, when the gradient is written."""
    check(loss, adversarial("edges hit", dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("loss", LOSSES)
def test_labels_of_rows(loss):
    """The class of each row, background K, ignored -1: the same bits as a label per logit."""
    g = torch.Generator().manual_seed(0)
    rows = torch.randint(-1, 12, (70,), generator=g).clamp(max=7)
    binary = (rows[:, None] == torch.arange(7)).long() - (rows < 0).long()[:, None]
    quality = torch.rand(int((binary == 1).sum()), generator=g)
    logits = torch.randn(490, generator=g)
    case = Case("rows", logits, binary.flatten(), quality, quality, 0.5)
    expected = run(loss, case)
    found = run(loss, case, rows, (70, 7))
    for ours, others in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, others, strict=True))


@pytest.mark.parametrize(("kind", "classes"), [(torch.bool, 1), (torch.uint8, 3), (torch.int8, 3)])
def test_types_of_labels_of_rows(kind, classes):
    rows = torch.randint(classes + 1, (70,), generator=torch.Generator().manual_seed(0))
    binary = (rows[:, None] == torch.arange(classes)).long().flatten()
    quality = torch.rand(int(binary.sum()))
    case = Case("rows", torch.randn(70 * classes), binary, quality, quality, 0.5)
    expected, found = (run("rs", case, x, (70, classes)) for x in (rows, rows.to(kind)))
    assert found[0] == expected[0]
    assert all(map(torch.equal, found[1], expected[1]))


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int8, torch.int32])
def test_types_of_labels(kind):
    case = adversarial("plain", torch.float32)
    case = case._replace(labels=case.labels.abs())
    case = case._replace(quality=torch.rand(int(case.labels.sum())))
    values, gradients = run("rs", case, case.labels.to(kind))
    expected = run("rs", case)
    assert values == expected[0]
    assert all(map(torch.equal, gradients, expected[1]))


def test_strided_logits():
    case = adversarial("plain", torch.float32)
    strided = case._replace(logits=case.logits.repeat_interleave(2)[::2])
    assert all(map(torch.equal, run("rs", case)[1], run("rs", strided)[1]))


@pytest.mark.parametrize(
    ("label", "broken"),
    [
        (-1, torch.nan),
        (0, torch.nan),
        (0, torch.inf),
        (0, -torch.inf),
        (1, torch.inf),
    ],
)
@pytest.mark.parametrize("loss", ["ap", "alrp", "brs"])
def test_broken_logits_show(loss, label, broken):
    case = adversarial("plain", torch.float32)
    case.logits[(case.labels == label).nonzero()[3]] = broken
    values, gradients = run(loss, case)
    assert all(value.isnan() for value in values)
    assert all(gradient.isnan().any() for gradient in gradients)


def test_terms_are_weighted_apart():
    case = adversarial("plain", torch.float64)
    _, (rank, sort) = run("rs", case)
    logits = case.logits.to(DEVICE).requires_grad_()
    arguments = case.labels.to(DEVICE), (case.labels == 1).nonzero().squeeze(1).to(DEVICE)
    terms = fused.compute(
        "sort", logits, *arguments, case.quality.to(DEVICE), delta=0.5, floor=SORT_MIN_MASS
    )
    (3 * terms["loss_rank"] - 2 * terms["loss_sort"]).backward()
    torch.testing.assert_close(logits.grad.cpu(), 3 * rank - 2 * sort, rtol=0, atol=1e-12)


def test_many_copies_and_blocks(monkeypatch):
    expected = run("brs", adversarial("plain", torch.float32))
    monkeypatch.setattr(cells, "_BLOCK", 32)
    for copied in (1, 1 << 17):
        monkeypatch.setattr(cells, "_COPIED_CELLS", copied)
        found = run("brs", adversarial("plain", torch.float32))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_the_same_bits_twice_and_in_any_order():
    case = adversarial("plain", torch.float32)
    shuffle = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    place = torch.zeros(300, dtype=torch.long)
    place[case.labels == 1] = torch.arange(40)
    quality = case.quality[place[shuffle][case.labels[shuffle] == 1]]
    other = Case("shuffled", case.logits[shuffle], case.labels[shuffle], quality, quality, 0.5)
    first, again, shuffled = run("rs", case), run("rs", case), run("rs", other)
    assert all(map(torch.equal, first[0] + first[1], again[0] + again[1]))
    assert all(map(torch.equal, first[0], shuffled[0]))
    assert all(torch.equal(a[shuffle], b) for a, b in zip(first[1], shuffled[1], strict=True))


def test_memory_is_that_of_the_gradient(monkeypatch):
    """4 bytes per logit, and tables of the size of the positives, in both passes together."""
    size = 1 << 18
    monkeypatch.setattr(cells, "_BLOCK", 1 << 15)
    logits = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    labels = (torch.arange(size, device=DEVICE) % (1 << 14) == 0).to(torch.int8)
    positives = labels.nonzero().squeeze(1)
    quality = torch.rand(len(positives), device=DEVICE)

    def forward() -> Tensor:
        arguments = logits, labels, positives, quality
        return sum(fused.compute("sort", *arguments, delta=0.5, floor=SORT_MIN_MASS).values())

    assert peak_memory(forward, logits.requires_grad_(), DEVICE) * MIB < 5 * size
