"""The criteria of one-stage detectors by name, for users who configure by name (YAML).

LazyConfig users write the same parts out, in `configs/common/one_stage_criteria.py`. Weights and
deltas are those of the published detectors where there is one; the others follow ATSS.
"""

from collections.abc import Callable

from brloss_d2.criteria.alrp import ALRPCriterion
from brloss_d2.criteria.matched import Criterion
from brloss_d2.criteria.quality import Centerness, PredictedIoU, QualityBranch, TopScore
from brloss_d2.criteria.ranking import RankingCriterion
from brloss_d2.criteria.score import SigmoidCriterion
from brloss_d2.losses import (
    ALRPLoss,
    APLoss,
    BinaryCrossEntropyLoss,
    BucketedAPLoss,
    BucketedRankSortLoss,
    ConstantBalancer,
    EpochSelfBalancer,
    GIoULoss,
    MatchabilityAwareLoss,
    QualityFocalLoss,
    RankSortLoss,
    ScoreLoss,
    SelfBalancer,
    SigmoidFocalLoss,
    SmoothL1Loss,
    VarifocalLoss,
)

ONE_STAGE_ARCHITECTURES = ("atss", "paa", "retinanet", "fovea")
ONE_STAGE_CRITERION_NAMES = (
    *("ce", "focal", "qfl", "vfl", "mal"),
    *("ap", "bap", "rs", "brs", "alrp"),
)
_IMAGES_PER_POOL = 4
_AP_LOSSES = {"ap": APLoss, "bap": BucketedAPLoss}
_RANK_SORT_LOSSES = {"rs": RankSortLoss, "brs": BucketedRankSortLoss}


def one_stage_criterion(architecture: str, name: str, *, epoch_steps: int) -> Criterion:
    """The criterion of a one-stage detector.

    Args:
        architecture: one of `ONE_STAGE_ARCHITECTURES`.
        name: one of `ONE_STAGE_CRITERION_NAMES`.
        epoch_steps: training steps in an epoch, used by aLRP Loss.

    Raises:
        ValueError: for another architecture or name.
    """
    for given, known in (
        (architecture, ONE_STAGE_ARCHITECTURES),
        (name, ONE_STAGE_CRITERION_NAMES),
    ):
        if given not in known:
            raise ValueError(f"unknown {given!r}, expected one of {known}")
    if name in ("ce", "focal"):
        return _HARD[architecture](name)
    if name in _SOFT:
        return _SOFT[name]()
    if name in _AP_LOSSES:
        return _average_precision(architecture, name)
    if name in _RANK_SORT_LOSSES:
        return RankingCriterion(
            _RANK_SORT_LOSSES[name](),
            GIoULoss(),
            SelfBalancer(),
            images_per_pool=_IMAGES_PER_POOL,
        )
    balancer = EpochSelfBalancer(pools_per_epoch=epoch_steps)
    return ALRPCriterion(ALRPLoss(), GIoULoss(), balancer, images_per_pool=_IMAGES_PER_POOL)


def _average_precision(architecture: str, name: str) -> RankingCriterion:
    loss = _AP_LOSSES[name](delta=0.5 if architecture == "paa" else 1.0)
    if architecture in ("atss", "paa"):
        balancer = ConstantBalancer(2.0 if architecture == "atss" else 1.0)
        return RankingCriterion(loss, GIoULoss(), balancer, images_per_pool=_IMAGES_PER_POOL)
    # The mean over positives and coordinates.
    return RankingCriterion(
        loss,
        SmoothL1Loss(beta=0.11 if architecture == "fovea" else 1.0),
        ConstantBalancer(0.25),
        score_weighted=False,
        images_per_pool=_IMAGES_PER_POOL,
    )


def _hard(name: str, alpha: float = 0.25, gamma: float = 2.0) -> ScoreLoss:
    """Focal loss, or the cross-entropy that it is made from."""
    if name == "ce":
        return BinaryCrossEntropyLoss()
    return SigmoidFocalLoss(alpha=alpha, gamma=gamma)


def _atss_hard(name: str) -> Criterion:
    return SigmoidCriterion(
        _hard(name),
        GIoULoss(),
        box_weight=2.0,
        normalizer="positives_per_image",
        box_weighting=Centerness(),
        quality=QualityBranch(Centerness()),
        sync_normalizer=True,
    )


def _paa_hard(name: str) -> Criterion:
    return SigmoidCriterion(
        _hard(name),
        GIoULoss(),
        box_weight=1.3,
        normalizer="positives_or_images",
        box_normalizer="positives",
        box_weighting=PredictedIoU(),
        quality=QualityBranch(PredictedIoU(), loss_weight=0.5),
    )


def _retinanet_hard(name: str) -> Criterion:
    return SigmoidCriterion(_hard(name), SmoothL1Loss(beta=0.0), normalizer="positives_per_image")


def _fovea_hard(name: str) -> Criterion:
    return SigmoidCriterion(
        _hard(name, alpha=0.4, gamma=1.5),
        SmoothL1Loss(beta=0.11),
        normalizer="positives_and_images",
        box_normalizer="positives",
    )


def _quality_focal() -> Criterion:
    return SigmoidCriterion(
        QualityFocalLoss(),
        GIoULoss(),
        box_weight=2.0,
        box_weighting=TopScore(),
        sync_normalizer=True,
    )


def _varifocal() -> Criterion:
    return _by_predicted_iou(VarifocalLoss())


def _matchability_aware() -> Criterion:
    """Published for a DETR; the boxes are those of varifocal loss."""
    return _by_predicted_iou(MatchabilityAwareLoss())


def _by_predicted_iou(cls_loss: ScoreLoss) -> Criterion:
    return SigmoidCriterion(
        cls_loss, GIoULoss(), box_weight=1.5, box_weighting=PredictedIoU(), sync_normalizer=True
    )


_HARD: dict[str, Callable[[str], Criterion]] = {
    "atss": _atss_hard,
    "paa": _paa_hard,
    "retinanet": _retinanet_hard,
    "fovea": _fovea_hard,
}
_SOFT: dict[str, Callable[[], Criterion]] = {
    "qfl": _quality_focal,
    "vfl": _varifocal,
    "mal": _matchability_aware,
}
