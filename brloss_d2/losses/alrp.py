"""Average Localization-Recall-Precision Loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.losses.base import (
    LossDict,
    RankingLoss,
    check_ranking,
    check_tensors,
    make_pool,
    no_positives,
    ranking_term,
)
from brloss_d2.ops import PoolGroup, Term, attach, exact_negatives
from brloss_d2.ops.dispatch import fused
from brloss_d2.ops.ramp import prefix_sums
from brloss_d2.ops.search import count_reached

# Below this mass of false positives the published loss assigns no gradient at all; the error it
# would share out is divided by that mass.
MIN_FALSE_POSITIVES = 1e-5


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
    check_tensors(localization_error=localization_error)
    if not localization_error.is_floating_point():
        raise ValueError(f"localization_error must be floating point: {localization_error.dtype}")
    positives = check_ranking(
        logits, labels, localization_error, delta, positives, group, kind="localization_error"
    )
    if positives.ndim != 1:
        raise ValueError(f"positives must have the shape (P,), got {tuple(positives.shape)}")
    terms = fused(
        "localize", logits, labels, positives, localization_error, delta, group,
        floor=MIN_FALSE_POSITIVES,
    )  # fmt: skip
    if terms is not None:
        return terms
    logits, pool = make_pool(logits, labels, positives, delta, group)
    error = pool.collect(localization_error)
    if len(pool) == 0:
        (rank_loss,) = attach(logits, no_positives(pool))
        return {"loss_rank": rank_loss, "loss_box": localization_error.sum() + rank_loss.detach()}
    own = 1.0 if delta == 0 else 0.5  # H(0)
    above, errors_above = pool.own_sum(F.pad(error[None], (0, 0, 1, 0), value=1.0))
    negatives = exact_negatives(pool)
    fp = negatives.false_positives
    rank = above + fp + (1 - own)
    received = torch.add(fp + errors_above, error, alpha=-own) / rank * (fp > MIN_FALSE_POSITIVES)
    share = received / fp.clamp(min=MIN_FALSE_POSITIVES)
    term = ranking_term(pool, negatives, (fp / rank).mean(), received, share)
    (rank_loss,) = attach(logits, term)
    # The component `mean_i [sum of E_k over s_k >= s_i] / rank(i)`, by k: each error counts in the
    # positives at or below it.
    at_or_below = count_reached(pool.logits, pool.logits)
    weights = prefix_sums(rank.reciprocal()).index_select(0, at_or_below)
    box_gradient = pool.spread(weights * pool.scale).to(localization_error.dtype)
    (box_loss,) = attach(localization_error, Term((error * weights).mean(), box_gradient))
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
