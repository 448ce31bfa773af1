"""Criteria by name: for each loss a node for the RPN, one for the box head and one for the masks.

`brloss_d2.criteria.presets` holds the same for YAML users.
"""

from detectron2.config import LazyCall as L

from brloss_d2.criteria import (
    ALRPCriterion,
    MaskCriterion,
    RankingCriterion,
    SigmoidCriterion,
    SoftmaxCriterion,
)
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
    RankSortLoss,
    SelfBalancer,
    SmoothL1Loss,
)

# As on each GPU of the published setting; the losses depend on it.
_IMAGES_PER_POOL = 4


def _dice():
    return L(MaskCriterion)(
        mask_loss=L(DiceLoss)(eps=1e-5),
        balancer=L(SelfBalancer)(),
        max_masks=200,
        images_per_pool=_IMAGES_PER_POOL,
    )


def _ranking(cls_loss):
    def node():
        return L(RankingCriterion)(
            cls_loss=cls_loss,
            box_loss=L(GIoULoss)(),
            balancer=L(SelfBalancer)(),
            images_per_pool=_IMAGES_PER_POOL,
        )

    return dict(rpn=node(), roi=node(), mask=_dice())


def _alrp(error_scale):
    return L(ALRPCriterion)(
        cls_loss=L(ALRPLoss)(delta=1.0),
        box_loss=L(GIoULoss)(),
        # Ranking pools in an epoch: COCO with 16 images, 4 on each GPU.
        balancer=L(EpochSelfBalancer)(pools_per_epoch=7330, initial=50.0),
        error_scale=error_scale,
        images_per_pool=_IMAGES_PER_POOL,
    )


ap = _ranking(L(APLoss)(delta=1.0))
bap = _ranking(L(BucketedAPLoss)(delta=1.0))
rs = _ranking(L(RankSortLoss)(delta=0.5))
brs = _ranking(L(BucketedRankSortLoss)(delta=0.5))
alrp = dict(rpn=_alrp(error_scale=1 / 0.6), roi=_alrp(error_scale=1.0), mask=_dice())
ce = dict(
    rpn=L(SigmoidCriterion)(
        cls_loss=L(BinaryCrossEntropyLoss)(), box_loss=L(SmoothL1Loss)(beta=0.0), normalizer="rows"
    ),
    roi=L(SoftmaxCriterion)(box_loss=L(SmoothL1Loss)(beta=0.0)),
    mask=L(MaskCriterion)(
        mask_loss=L(MaskCrossEntropyLoss)(), balancer=L(ConstantBalancer)(weight=1.0)
    ),
)
