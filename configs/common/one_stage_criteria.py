"""Criteria of one-stage detectors: for each detector one node for each loss.

`brloss_d2.criteria.one_stage_presets` holds the same for YAML users.
"""

from detectron2.config import LazyCall as L

from brloss_d2.criteria import (
    ALRPCriterion,
    Centerness,
    PredictedIoU,
    QualityBranch,
    RankingCriterion,
    SigmoidCriterion,
    TopScore,
)
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
    SelfBalancer,
    SigmoidFocalLoss,
    SmoothL1Loss,
    VarifocalLoss,
)

# As on each GPU of the published settings; the losses depend on it.
_IMAGES_PER_POOL = 4
_IMAGES_PER_POOL_500S = 8


def _average_precision(cls_loss, box_weight):
    return L(RankingCriterion)(
        cls_loss=cls_loss,
        box_loss=L(GIoULoss)(),
        balancer=L(ConstantBalancer)(weight=box_weight),
        images_per_pool=_IMAGES_PER_POOL,
    )


def _average_precision_on_deltas(cls_loss, beta, images=_IMAGES_PER_POOL):
    return L(RankingCriterion)(
        cls_loss=cls_loss,
        box_loss=L(SmoothL1Loss)(beta=beta),
        # The mean over positives and coordinates.
        balancer=L(ConstantBalancer)(weight=0.25),
        score_weighted=False,
        images_per_pool=images,
    )


def _alrp(epoch_iterations, images):
    return L(ALRPCriterion)(
        cls_loss=L(ALRPLoss)(delta=1.0),
        box_loss=L(GIoULoss)(),
        balancer=L(EpochSelfBalancer)(pools_per_epoch=epoch_iterations, initial=50.0),
        images_per_pool=images,
    )


def _rank_sort(cls_loss):
    return L(RankingCriterion)(
        cls_loss=cls_loss,
        box_loss=L(GIoULoss)(),
        balancer=L(SelfBalancer)(),
        images_per_pool=_IMAGES_PER_POOL,
    )


def _by_predicted_iou(cls_loss):
    return L(SigmoidCriterion)(
        cls_loss=cls_loss,
        box_loss=L(GIoULoss)(),
        box_weight=1.5,
        box_weighting=L(PredictedIoU)(),
        sync_normalizer=True,
    )


def _common():
    """What every detector trains alike."""
    return dict(
        rs=_rank_sort(L(RankSortLoss)(delta=0.5)),
        brs=_rank_sort(L(BucketedRankSortLoss)(delta=0.5)),
        # COCO with 16 and, at 512 x 512 pixels, with 32 images.
        alrp=_alrp(7330, _IMAGES_PER_POOL),
        alrp_500s=_alrp(3665, _IMAGES_PER_POOL_500S),
        qfl=L(SigmoidCriterion)(
            cls_loss=L(QualityFocalLoss)(beta=2.0),
            box_loss=L(GIoULoss)(),
            box_weight=2.0,
            box_weighting=L(TopScore)(),
            sync_normalizer=True,
        ),
        vfl=_by_predicted_iou(L(VarifocalLoss)(alpha=0.75, gamma=2.0)),
        # Published for a DETR; the boxes are those of varifocal loss.
        mal=_by_predicted_iou(L(MatchabilityAwareLoss)(gamma=1.5)),
    )


def _hard_targets(criterion, alpha=0.25, gamma=2.0):
    """Focal loss, and the cross-entropy that it is made from; all else alike."""
    return dict(
        focal=criterion(L(SigmoidFocalLoss)(alpha=alpha, gamma=gamma)),
        ce=criterion(L(BinaryCrossEntropyLoss)()),
    )


def _atss(cls_loss):
    return L(SigmoidCriterion)(
        cls_loss=cls_loss,
        box_loss=L(GIoULoss)(),
        box_weight=2.0,
        normalizer="positives_per_image",
        box_weighting=L(Centerness)(),
        quality=L(QualityBranch)(target=L(Centerness)(), loss_weight=1.0),
        sync_normalizer=True,
    )


def _paa(cls_loss):
    return L(SigmoidCriterion)(
        cls_loss=cls_loss,
        box_loss=L(GIoULoss)(),
        box_weight=1.3,
        normalizer="positives_or_images",
        box_normalizer="positives",
        box_weighting=L(PredictedIoU)(),
        quality=L(QualityBranch)(target=L(PredictedIoU)(), loss_weight=0.5),
    )


def _retinanet(cls_loss):
    return L(SigmoidCriterion)(
        cls_loss=cls_loss, box_loss=L(SmoothL1Loss)(beta=0.0), normalizer="positives_per_image"
    )


def _fovea(cls_loss):
    return L(SigmoidCriterion)(
        cls_loss=cls_loss,
        box_loss=L(SmoothL1Loss)(beta=0.11),
        normalizer="positives_and_images",
        box_normalizer="positives",
    )


atss = dict(
    _common(),
    ap=_average_precision(L(APLoss)(delta=1.0), 2.0),
    bap=_average_precision(L(BucketedAPLoss)(delta=1.0), 2.0),
    **_hard_targets(_atss),
)
paa = dict(
    _common(),
    ap=_average_precision(L(APLoss)(delta=0.5), 1.0),
    bap=_average_precision(L(BucketedAPLoss)(delta=0.5), 1.0),
    **_hard_targets(_paa),
)
retinanet = dict(
    _common(),
    ap=_average_precision_on_deltas(L(APLoss)(delta=1.0), beta=1.0),
    bap=_average_precision_on_deltas(L(BucketedAPLoss)(delta=1.0), beta=1.0),
    **_hard_targets(_retinanet),
)
fovea = dict(
    _common(),
    ap=_average_precision_on_deltas(L(APLoss)(delta=1.0), beta=0.11),
    ap_500s=_average_precision_on_deltas(
        L(APLoss)(delta=1.0), beta=0.11, images=_IMAGES_PER_POOL_500S
    ),
    bap=_average_precision_on_deltas(L(BucketedAPLoss)(delta=1.0), beta=0.11),
    **_hard_targets(_fovea, alpha=0.4, gamma=1.5),
)
