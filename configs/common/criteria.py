"""Criteria by name: for each loss one node for the RPN and one for the box head.

`brloss_d2.criteria.presets` holds the same for YAML users.
"""

from detectron2.config import LazyCall as L

from brloss_d2.criteria import ALRPCriterion, RankingCriterion, SigmoidCriterion, SoftmaxCriterion
from brloss_d2.losses import (
    ALRPLoss,
    APLoss,
    BinaryCrossEntropyLoss,
    BucketedAPLoss,
    BucketedRankSortLoss,
    EpochSelfBalancer,
    GIoULoss,
    RankSortLoss,
    SelfBalancer,
    SmoothL1Loss,
)

# As on each GPU of the published setting; the losses depend on it.
_IMAGES_PER_POOL = 4


def _ranking(cls_loss):
    def node():
        return L(RankingCriterion)(
            cls_loss=cls_loss,
            box_loss=L(GIoULoss)(),
            balancer=L(SelfBalancer)(),
            images_per_pool=_IMAGES_PER_POOL,
        )

    return dict(rpn=node(), roi=node())


def _alrp(error_scale):
    return L(ALRPCriterion)(
        cls_loss=L(ALRPLoss)(delta=1.0),
        box_loss=L(GIoULoss)(),
        # Ranking pools in an epoch: COCO with 16 images, 4 on each GPU.
        balancer=L(EpochSelfBalancer)(period=7330, initial=50.0),
        error_scale=error_scale,
        images_per_pool=_IMAGES_PER_POOL,
    )


ap = _ranking(L(APLoss)(delta=1.0))
bap = _ranking(L(BucketedAPLoss)(delta=1.0))
rs = _ranking(L(RankSortLoss)(delta=0.5))
brs = _ranking(L(BucketedRankSortLoss)(delta=0.5))
alrp = dict(rpn=_alrp(error_scale=1 / 0.6), roi=_alrp(error_scale=1.0))
ce = dict(
    rpn=L(SigmoidCriterion)(
        cls_loss=L(BinaryCrossEntropyLoss)(), box_loss=L(SmoothL1Loss)(beta=0.0), normalizer="rows"
    ),
    roi=L(SoftmaxCriterion)(box_loss=L(SmoothL1Loss)(beta=0.0)),
)
