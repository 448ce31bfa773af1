"""Theorem 1 of Yavuz et al., ECCV 2024: without smoothing, buckets change no gradient.

With delta = 0 all negatives between two positives are above the same positives, so that their mean
says as much as each of them. The proof compares BAP with the AP Loss of the same definition, not
interpolated, which is the ranking term of RS Loss, and BRS with RS.
"""

import pytest
import torch
from torch import Tensor

from brloss_d2.losses import bucketed_ap_loss, bucketed_rank_sort_loss, rank_sort_loss


def draw(seed: int, *, ties: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Draw logits, labels and quality of 1 to 30 positives, up to 200 negatives and 9 ignored."""
    g = torch.Generator().manual_seed(seed)
    sizes = [int(torch.randint(low, high, (), generator=g)) for low, high in ((1, 31), (0, 201))]
    labels = torch.tensor([1, 0, -1]).repeat_interleave(torch.tensor([*sizes, 9]))
    labels = labels[torch.randperm(len(labels), generator=g)]
    logits = torch.randn(len(labels), generator=g, dtype=torch.float64) * 2 + (labels == 1)
    quality = torch.rand(sizes[0], generator=g, dtype=torch.float64)
    if ties:  # of positives, of negatives, and of both
        logits, quality = (logits * 2).round() / 2, (quality * 4).round() / 4
    return logits, labels, quality


def gradients(loss, logits: Tensor, *arguments: Tensor, delta: float) -> dict[str, Tensor]:
    logits = logits.clone().requires_grad_()
    terms = loss(logits, *arguments, delta=delta)
    return {
        name: torch.autograd.grad(value, logits, retain_graph=True)[0]
        for name, value in terms.items()
    }


def difference(case: tuple[Tensor, Tensor, Tensor], delta: float) -> float:
    """Largest difference of BAP and of BRS from the losses without buckets, over all terms."""
    exact, brs = (
        gradients(loss, *case, delta=delta) for loss in (rank_sort_loss, bucketed_rank_sort_loss)
    )
    bap = gradients(bucketed_ap_loss, *case[:2], delta=delta)
    pairs = [(bap["loss_rank"], exact["loss_rank"]), *((brs[term], exact[term]) for term in exact)]
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_without_smoothing_buckets_change_no_gradient(ties):
    cases = [draw(seed, ties=ties) for seed in range(60)]
    assert max(difference(case, 0.0) for case in cases) <= 1e-14
    # All the terms have been compared with something.
    terms = [gradients(rank_sort_loss, *case, delta=0.0) for case in cases]
    assert all(sum(bool(t[name].any()) for t in terms) >= 50 for name in terms[0])


def test_without_smoothing_the_values_agree_too():
    for seed in range(60):
        case = draw(seed, ties=True)
        exact, bucketed = (
            loss(*case, delta=0.0) for loss in (rank_sort_loss, bucketed_rank_sort_loss)
        )
        torch.testing.assert_close(bucketed, exact, rtol=0, atol=1e-14)


@pytest.mark.parametrize("delta", [0.5, 1.0])
def test_with_smoothing_the_theorem_ends(delta):
    """A ramp tells the members of a bucket apart, and their mean does not; sorting stays equal."""
    differences = []
    for seed in range(60):
        case = draw(seed, ties=False)
        exact, brs = (
            gradients(loss, *case, delta=delta)
            for loss in (rank_sort_loss, bucketed_rank_sort_loss)
        )
        assert torch.equal(exact["loss_sort"], brs["loss_sort"])
        norm = exact["loss_rank"].norm().clamp(min=1e-12)
        differences.append(float((brs["loss_rank"] - exact["loss_rank"]).norm() / norm))
    assert sorted(differences)[len(differences) // 2] > 0.01


def test_the_smallest_case_in_which_it_ends():
    """A positive at 0 under negatives at 1/4 and 5/4, delta 1/2: H is 3/4 and 1; of the mean, 1."""
    logits = torch.tensor([0.0, 0.25, 1.25], dtype=torch.float64)
    labels, quality = torch.tensor([1, 0, 0]), torch.ones(1, dtype=torch.float64)
    exact = gradients(rank_sort_loss, logits, labels, quality, delta=0.5)["loss_rank"]
    bucketed = gradients(bucketed_ap_loss, logits, labels, delta=0.5)["loss_rank"]
    # FP / rank is 1.75 / 2.25 and 2 / 2.5.
    torch.testing.assert_close(exact, torch.tensor([-7 / 9, 3 / 9, 4 / 9]).double())
    torch.testing.assert_close(bucketed, torch.tensor([-0.8, 0.4, 0.4]).double())
