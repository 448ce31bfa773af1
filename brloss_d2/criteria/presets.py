"""The published criteria by name, for users who configure by name (YAML).

LazyConfig users write the same parts out, in `configs/common/criteria.py`.
"""

from collections.abc import Callable

from brloss_d2.criteria.alrp import ALRPCriterion
from brloss_d2.criteria.mask import MaskCriterion
from brloss_d2.criteria.matched import Criterion
from brloss_d2.criteria.ranking import RankingCriterion
from brloss_d2.criteria.score import SigmoidCriterion, SoftmaxCriterion
from brloss_d2.losses import (
    ALRPLoss,
    APLoss,
    BinaryCrossEntropyLoss,
    BucketedAPLoss,
    BucketedRankSortLoss,
    ConstantBalancer,
    DiceLoss,
    EpochSelfBalancer,
    GIoULoss,
    MaskCrossEntropyLoss,
    RankingLoss,
    RankSortLoss,
    SelfBalancer,
    SmoothL1Loss,
)

_RANKING_LOSSES: dict[str, Callable[[], RankingLoss]] = {
    "ap": APLoss,
    "bap": BucketedAPLoss,
    "rs": RankSortLoss,
    "brs": BucketedRankSortLoss,
}
# As on the published setting's GPUs; the losses depend on it.
_IMAGES_PER_POOL = 4
_MASKS_PER_POOL = 200
CRITERION_NAMES = ("ce", *_RANKING_LOSSES, "alrp")


def rpn_criterion(name: str, *, epoch_steps: int) -> Criterion:
    """The criterion of a region proposal network: one class, positives from IoU 0.7.

    Args:
        name: one of `CRITERION_NAMES`.
        epoch_steps: training steps in an epoch, used by aLRP Loss.
    """
    if name == "ce":
        return SigmoidCriterion(BinaryCrossEntropyLoss(), SmoothL1Loss(), normalizer="rows")
    return _ranking_criterion(name, epoch_steps, error_scale=1 / 0.6)


def roi_criterion(name: str, *, epoch_steps: int) -> Criterion:
    """The criterion of a box head with positives from IoU 0.5. Arguments as `rpn_criterion`."""
    if name == "ce":
        return SoftmaxCriterion(SmoothL1Loss())
    return _ranking_criterion(name, epoch_steps, error_scale=1.0)


def mask_criterion(name: str) -> MaskCriterion:
    """The criterion of a mask head: Dice loss, or cross-entropy for "ce".

    Args:
        name: one of `CRITERION_NAMES`.
    """
    if name == "ce":
        return MaskCriterion(MaskCrossEntropyLoss(), ConstantBalancer(1.0))
    _check_name(name)
    return MaskCriterion(
        DiceLoss(),
        SelfBalancer(),
        max_masks=_MASKS_PER_POOL,
        images_per_pool=_IMAGES_PER_POOL,
    )


def _check_name(name: str) -> None:
    if name not in CRITERION_NAMES:
        raise ValueError(f"unknown criterion {name!r}, expected one of {CRITERION_NAMES}")


def _ranking_criterion(name: str, epoch_steps: int, *, error_scale: float) -> Criterion:
    if name == "alrp":
        balancer = EpochSelfBalancer(pools_per_epoch=epoch_steps)
        return ALRPCriterion(
            ALRPLoss(),
            GIoULoss(),
            balancer,
            error_scale=error_scale,
            images_per_pool=_IMAGES_PER_POOL,
        )
    _check_name(name)
    return RankingCriterion(
        _RANKING_LOSSES[name](), GIoULoss(), SelfBalancer(), images_per_pool=_IMAGES_PER_POOL
    )
