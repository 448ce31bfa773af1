"""Losses of Co-Deformable-DETR: criteria, their weights, and what they train on."""

from collections import OrderedDict

from detectron2.config import LazyCall as L

from brloss_d2.criteria import RankingCriterion, SigmoidCriterion, SoftmaxCriterion
from brloss_d2.losses import (
    BinaryCrossEntropyLoss,
    BucketedRankSortLoss,
    GIoULoss,
    RankSortLoss,
    SelfBalancer,
    SigmoidFocalLoss,
    SmoothL1Loss,
)
from brloss_d2.projects.co_detr.modeling.unit_frame import UnitFrameCriterion

from .....configs.common.criteria import focal as _focal_loss

# As on each GPU of the published setting; the losses depend on it.
_IMAGES_PER_POOL = 4
# Six decoder layers, each of which counts the losses of the auxiliary heads twice.
_AUXILIARY_WEIGHT = 12.0


def use_brs(model):
    """Train BRS-DETR: BRS Loss in all heads, nothing sampled, self-balanced boxes."""
    _use_ranking(model, L(BucketedRankSortLoss)(delta=0.5))


def use_rs(model):
    """Train with RS Loss in all heads, otherwise as BRS-DETR."""
    _use_ranking(model, L(RankSortLoss)(delta=0.5))


def _use_ranking(model, cls_loss):
    def criterion(box_loss):
        return L(RankingCriterion)(
            cls_loss=cls_loss,
            box_loss=box_loss,
            balancer=L(SelfBalancer)(),
            score_weighted=False,
            disjoint_is_negative=True,
            images_per_pool=_IMAGES_PER_POOL,
        )

    model.query_losses.update(
        {site: criterion(_query_boxes()) for site in ("decoder", "encoder", "custom")}
    )
    model.query_losses.matcher.cls_weight = 4.0
    model.proposal_generator.update(
        # The published RPN compares boxes in this frame.
        criterion=L(UnitFrameCriterion)(criterion=criterion(L(GIoULoss)())),
        loss_weight=1.0,
        post_nms_topk=(4000, 1000),
        # Boxes without area are kept.
        min_box_size=-1.0,
    )
    model.roi_heads.box_predictor.update(criterion=criterion(L(GIoULoss)()), loss_weight=5.0)
    model.dense_head.update(criterion=criterion(L(GIoULoss)()), loss_weight=5.0)


def use_focal(model):
    """Train Co-DETR: focal loss for queries and the dense head, cross-entropy in the R-CNN."""
    model.query_losses.update(decoder=_focal(), encoder=_focal(), custom=_focal())
    model.query_losses.matcher.cls_weight = 2.0
    model.proposal_generator.update(
        criterion=L(SigmoidCriterion)(
            cls_loss=L(BinaryCrossEntropyLoss)(),
            box_loss=L(SmoothL1Loss)(beta=0.0),
            normalizer="rows",
        ),
        loss_weight=_AUXILIARY_WEIGHT,
        batch_size_per_image=256,
        post_nms_topk=(1000, 1000),
    )
    model.roi_heads.update(batch_size_per_image=512, proposal_append_gt=True)
    model.roi_heads.box_predictor.update(
        criterion=L(SoftmaxCriterion)(box_loss=L(GIoULoss)(), box_weight=10.0),
        loss_weight=_AUXILIARY_WEIGHT,
    )
    model.dense_head.update(criterion=_focal_loss.atss, loss_weight=_AUXILIARY_WEIGHT)
    model.dense_head.head.has_quality = True


def _focal():
    """Half the published weights 2, 5 and 2: the other factor is `query_losses.weight`."""
    return L(SigmoidCriterion)(
        cls_loss=L(SigmoidFocalLoss)(alpha=0.25, gamma=2.0),
        box_loss=_query_boxes(),
        box_weight=dict(loss_l1=2.5, loss_giou=1.0),
        normalizer="positives",
        sync_normalizer=True,
    )


def _query_boxes():
    # A plain dict would not be instantiated, and OmegaConf refuses `dict` itself.
    return L(OrderedDict)(loss_l1=L(SmoothL1Loss)(beta=0.0), loss_giou=L(GIoULoss)())
