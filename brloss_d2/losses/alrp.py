"""Average Localization-Recall-Precision Loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.losses.base import (
    LossDict,
    RankingLoss,
    make_pool,
    no_positives,
    ranking_term,
    with_kernel,
)
from brloss_d2.ops import PoolGroup, Term, attach, exact_negatives
from brloss_d2.ops.ramp import prefix_sums
from brloss_d2.ops.search import count_reached

# Below this mass of false positives the published loss assigns no gradient at all; the error it
# would share out is divided by that mass.
MIN_FALSE_POSITIVES = 1e-5


@with_kernel("localize", kind="localization_error", floor=MIN_FALSE_POSITIVES)
def alrp_loss(
    logits: Tensor,
    labels: Tensor,
    localization_error: Tensor,
    *,
    delta: float = 1.0,
    positives: Tensor | None = None,
    group: PoolGroup | None = None,
) -> LossDict:
    """Average LRP Loss, aLRP (Oksuz et al., NeurIPS 2020).

    Positives rank by their localization errors, which are regressed as well.

    O((P + N) log P) time and O(P + N) memory for P positives and N negatives.

    Args:
        logits: (M,) logits, floating point of any precision, or those of R rows and K classes,
            (R, K).
        labels: (M,) integers: 1 positive, 0 negative, -1 ignored; or (R,) class of each row, K
            for the background, -1 ignored.
        localization_error: (P,) errors >= 0 of the positives, in the order in which
            `labels == 1` occurs, differentiable; 1 is the error of a box that just counts as true.
        delta: half-width of the ramp that smooths the comparison of two logits, in logits, >= 0.
        positives: (P,) int64 positions of the positives in the flat logits, ascending; trusted, as
            are the values of all other tensors then. If None, they are searched for, which makes
            the host wait for a GPU.
        group: processes whose decisions are ranked together; all of them have to call. Values are
            those of the whole pool on every process; gradients are such that their average over
            the processes is the gradient of the whole pool.

    Returns:
        `loss_rank`: () classification component. Its gradient takes into account the errors of
        the positives that rank higher. `loss_box`: () localization component with the published
        hard order of the positives, differentiable in the errors, not in the logits. Both are 0
        and attached to the graph if there is no positive, NaN if a logit is NaN or infinite.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> logits = torch.tensor([2.0, 1.0, -1.0], requires_grad=True)
        >>> losses = alrp_loss(logits, torch.tensor([1, 0, 0]), torch.tensor([0.3]), delta=0.0)
        >>> {name: round(value.item(), 4) for name, value in losses.items()}
        {'loss_rank': 0.0, 'loss_box': 0.3}
    """
    logits, pool = make_pool(logits, labels, positives, delta, group)
    error = pool.collect(localization_error)
    if len(pool) == 0:
        (rank_loss,) = attach(logits, no_positives(pool))
        return {"loss_rank": rank_loss, "loss_box": localization_error.sum() + rank_loss.detach()}
    weights = F.pad(error[None], (0, 0, 1, 0), value=1.0)
    own = 1.0 if delta == 0 else 0.5  # H(0)
    others = torch.sub(pool.own_sum(weights), weights, alpha=own)  # above a positive, without it
    negatives = exact_negatives(pool)
    fp = negatives.false_positives
    above, errors_above = others + fp  # a false positive counts like a positive of error 1
    of_rank = (above + 1).reciprocal() * pool.scale
    # Too few false positives receive nothing, as if they were infinitely many.
    share = errors_above * of_rank / F.threshold(fp, MIN_FALSE_POSITIVES, torch.inf)
    # The component `sum_i [sum of E_k over s_k >= s_i] / rank(i)`, by k: each error counts in the
    # positives at or below it.
    at_or_below = count_reached(pool.logits, pool.logits)
    of_error = prefix_sums(of_rank).index_select(0, at_or_below)
    rank_value, box_value = torch.dot(fp, of_rank), torch.dot(error, of_error)
    if pool.group.size > 1:  # by which gradients are multiplied, but not values
        rank_value, box_value = rank_value / pool.group.size, box_value / pool.group.size
    term = ranking_term(pool, negatives, rank_value, share * fp, share, scaled=True)
    (rank_loss,) = attach(logits, term)
    (box_loss,) = attach(localization_error, Term(box_value, pool.spread(of_error)))
    return {"loss_rank": rank_loss, "loss_box": box_loss}


class ALRPLoss(RankingLoss):
    """Module form of `alrp_loss`.

    Args:
        delta: half-width of the ramp, in logits, >= 0.

    Example:
        >>> ALRPLoss()
        ALRPLoss(delta=1.0)
    """

    def __init__(self, *, delta: float = 1.0):
        super().__init__(delta=delta)

    def forward(  # type: ignore[override]
        self,
        logits: Tensor,
        labels: Tensor,
        localization_error: Tensor,
        *,
        positives: Tensor | None = None,
        group: PoolGroup | None = None,
    ) -> LossDict:
        """Compute both components; arguments as in `alrp_loss`."""
        return alrp_loss(
            logits, labels, localization_error, delta=self.delta, positives=positives, group=group
        )
