"""Losses to time: those of brloss_d2, the published algorithms, and focal loss."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from brloss_d2 import losses
from support import published
from support.problems import Problem

FOCAL = "focal"


class Contender(NamedTuple):
    """One loss to time.

    Attributes:
        prepare: function that turns a problem, whose logits require a gradient, into the forward
            pass, a function without arguments that returns a tensor (). Preparation is not timed.
        label: name in plots.
        matrices: number of float32 matrices (P, P) that are in memory at the same time.
        ours: whether brloss_d2 offers the loss.
    """

    prepare: Callable[[Problem], Callable[[], Tensor]]
    label: str
    matrices: int = 0
    ours: bool = False

    def matrix_bytes(self, positives: int) -> int:
        """Return the bytes of its matrices, to refuse a problem that does not fit into memory."""
        return self.matrices * 4 * positives**2


def _prepare_ranking(
    loss: Callable[..., dict[str, Tensor]], problem: Problem
) -> Callable[[], Tensor]:
    def forward() -> Tensor:
        first, *rest = loss(*problem).values()
        return sum(rest, first)

    return forward


def _prepare_focal(problem: Problem) -> Callable[[], Tensor]:
    targets = problem.labels.float()
    return partial(sigmoid_focal_loss, problem.logits, targets, reduction="sum")


def _ranking(loss: Callable[..., dict[str, Tensor]], label: str, **options: Any) -> Contender:
    return Contender(partial(_prepare_ranking, loss), label, **options)


CONTENDERS = {
    FOCAL: Contender(_prepare_focal, "focal (torchvision)"),
    "ap": _ranking(losses.APLoss(), "AP, exact", ours=True),
    "bap": _ranking(losses.BucketedAPLoss(), "BAP, bucketed", ours=True),
    "alrp": _ranking(losses.ALRPLoss(), "aLRP, exact", ours=True),
    "rs": _ranking(losses.RankSortLoss(), "RS, exact", ours=True),
    "brs": _ranking(losses.BucketedRankSortLoss(), "BRS, bucketed", ours=True),
    "ap_loop": _ranking(published.average_precision_loop, "AP, published loop"),
    "rs_loop": _ranking(published.rank_sort_loop, "RS, published loop"),
    # H of the positives, comparisons of quality and the products of both.
    "brs_matrices": _ranking(
        published.bucketed_rank_sort_matrices, "BRS, published sort and matrices", matrices=6
    ),
}
