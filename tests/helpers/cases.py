"""Golden and random cases of the ranking losses, and the table of losses to try on them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from brloss_d2 import losses
from brloss_d2.losses import reference

GOLDEN = Path(__file__).parents[1] / "golden" / "ranking_losses_v1.npz"


class Row(NamedTuple):
    """One loss.

    Attributes:
        function: functional form.
        module: module form.
        reference: dense definition.
        terms: name of the golden loss of each term, "" if none was published.
    """

    function: Callable
    module: type[losses.RankingLoss]
    reference: Callable
    terms: dict[str, str]


TABLE = {
    "ap": Row(losses.ap_loss, losses.APLoss, reference.ap, {"loss_rank": "ap_interp"}),
    "bap": Row(
        losses.bucketed_ap_loss, losses.BucketedAPLoss, reference.bap, {"loss_rank": "bap_negfirst"}
    ),
    "alrp": Row(losses.alrp_loss, losses.ALRPLoss, reference.alrp, {"loss_rank": "alrp"}),
    "rs": Row(
        losses.rank_sort_loss,
        losses.RankSortLoss,
        reference.rank_sort,
        {"loss_rank": "rs_rank", "loss_sort": "rs_sort"},
    ),
    "brs": Row(
        losses.bucketed_rank_sort_loss,
        losses.BucketedRankSortLoss,
        reference.bucketed_rank_sort,
        {"loss_rank": "bap_negfirst", "loss_sort": "rs_sort"},
    ),
}


class Case(NamedTuple):
    """Inputs of a ranking loss."""

    name: str
    logits: Tensor
    labels: Tensor
    quality: Tensor
    error: Tensor
    delta: float

    def arguments(self, loss: str) -> tuple[Tensor, ...]:
        """Return the tensors that a loss takes."""
        if loss in ("ap", "bap"):
            return self.logits, self.labels
        return self.logits, self.labels, self.error if loss == "alrp" else self.quality


class Golden(NamedTuple):
    """Golden values and gradients of a case, by name of the golden loss."""

    case: Case
    losses: dict[str, float]
    gradients: dict[str, Tensor]
    error_gradient: Tensor


@cache
def golden_cases() -> list[Golden]:
    """Read the golden file."""
    z = np.load(GOLDEN)
    cases = []
    for i, name in enumerate(z["case_name"]):
        key = f"c{i:03d}_"
        targets = torch.from_numpy(z[key + "targets"])
        labels = (targets > 0).long() - (targets < 0).long()
        case = Case(
            str(name),
            torch.from_numpy(z[key + "logits"]),
            labels,
            targets[targets > 0],
            torch.from_numpy(z[key + "reg"]),
            float(z["delta"][i]),
        )
        gradients = {
            str(n): torch.from_numpy(g)
            for n, g in zip(z["grad_names"], z[key + "grad"], strict=True)
        }
        values = {str(n): float(v) for n, v in zip(z["loss_names"], z["loss"][i], strict=True)}
        error_gradient = torch.from_numpy(z[key + "alrp_grad_reg"])[1]
        cases.append(Golden(case, values, gradients, error_gradient))
    return cases


def random_case(seed: int) -> Case:
    """Draw a small problem: any mix of positives, negatives and ignored, with or without ties."""
    g = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=g))

    sizes = [draw(0, 3) * draw(0, 12), draw(0, 3) * draw(0, 40), draw(0, 8)]
    labels = torch.repeat_interleave(torch.tensor([1, 0, -1]), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=g)]
    spread = float([0.1, 1.0, 4.0][draw(0, 3)])
    logits = torch.randn(len(labels), generator=g, dtype=torch.float64) * spread
    quality = torch.rand(sizes[0], generator=g, dtype=torch.float64)
    if draw(0, 2):
        logits, quality = (logits * 4).round() / 4, (quality * 4).round() / 4
    error = torch.rand(sizes[0], generator=g, dtype=torch.float64) * 2
    delta = [0.0, 0.25, 0.5, 1.0, 3.0][draw(0, 5)]
    return Case(f"seed{seed}", logits, labels, quality, error, delta)


def run(
    loss: str, case: Case, dtype: torch.dtype = torch.float64
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor | None]:
    """Return values by term, gradients of the logits by term, and aLRP's gradient of the errors."""
    arguments = [x.to(dtype) if x.is_floating_point() else x for x in case.arguments(loss)]
    logits = arguments[0] = arguments[0].clone().requires_grad_()
    if loss == "alrp":
        arguments[2] = arguments[2].clone().requires_grad_()
    out = TABLE[loss].function(*arguments, delta=case.delta)
    gradients = {
        term: torch.autograd.grad(out[term], logits, retain_graph=True)[0]
        for term in TABLE[loss].terms
    }
    error_gradient = None
    if loss == "alrp":
        (error_gradient,) = torch.autograd.grad(out["loss_box"], arguments[2])
    return {name: value.detach() for name, value in out.items()}, gradients, error_gradient
