"""What is timed: the losses of brloss_d2, the published algorithms and focal loss."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from brloss_d2 import losses
from support import published
from support.problems import Problem

FOCAL = "focal"
FLOAT_BYTES = 4
# H of the positives, quality comparisons and the products with them, live at once.
_MATRICES = 6


def _no_matrices(positives: int) -> int:
    return 0


class Contender(NamedTuple):
    """One loss to time.

    Attributes:
        prepare: makes the forward pass, `() -> ()` tensor, from a problem whose logits require a
            gradient. What it does itself is not timed.
        label: for plots.
        matrix_bytes: memory for matrices over so many positives, to be refused in time.
        ours: whether brloss_d2 offers it.
    """

    prepare: Callable[[Problem], Callable[[], Tensor]]
    label: str
    matrix_bytes: Callable[[int], int] = _no_matrices
    ours: bool = False


def _ranking(loss: Callable[..., dict[str, Tensor]]) -> Callable[[Problem], Callable[[], Tensor]]:
    def prepare(problem: Problem) -> Callable[[], Tensor]:
        def forward() -> Tensor:
            first, *rest = loss(*problem).values()
            return sum(rest, first)

        return forward

    return prepare


def _focal(problem: Problem) -> Callable[[], Tensor]:
    targets = problem.labels.float()
    return lambda: sigmoid_focal_loss(problem.logits, targets, reduction="sum")


CONTENDERS = {
    FOCAL: Contender(_focal, "focal (torchvision)"),
    "ap": Contender(_ranking(losses.APLoss()), "AP, exact", ours=True),
    "bap": Contender(_ranking(losses.BucketedAPLoss()), "BAP, bucketed", ours=True),
    "alrp": Contender(_ranking(losses.ALRPLoss()), "aLRP, exact", ours=True),
    "rs": Contender(_ranking(losses.RankSortLoss()), "RS, exact", ours=True),
    "brs": Contender(_ranking(losses.BucketedRankSortLoss()), "BRS, bucketed", ours=True),
    "ap_loop": Contender(_ranking(published.average_precision_loop), "AP, published loop"),
    "rs_loop": Contender(_ranking(published.rank_sort_loop), "RS, published loop"),
    "brs_matrices": Contender(
        _ranking(published.bucketed_rank_sort_matrices),
        "BRS, published sort and matrices",
        matrix_bytes=lambda positives: _MATRICES * FLOAT_BYTES * positives**2,
    ),
}
