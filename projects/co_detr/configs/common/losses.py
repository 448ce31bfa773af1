"""Losses of Co-Deformable-DETR and Co-DINO: criteria, their weights, and what they train on."""

from collections import OrderedDict

from detectron2.config import LazyCall as L

from brloss_d2.criteria import RankingCriterion, SigmoidCriterion, SoftmaxCriterion
from brloss_d2.losses import (
    BinaryCrossEntropyLoss,
    ClassWeightedLoss,
    ConstantBalancer,
    CorrelationLoss,
    DRLoss,
    GIoULoss,
    SelfBalancer,
    SmoothL1Loss,
)
from brloss_d2.model_zoo import get_criterion, list_criteria
from brloss_d2.projects.co_detr.modeling.query_head import CoDINOHead
from brloss_d2.projects.co_detr.modeling.unit_frame import UnitFrameCriterion
from brloss_d2.utils.config_nodes import target_of

# aLRP Loss ranks by localization errors, for which queries have no criterion.
LOSSES = [name for name in list_criteria("atss") if name != "alrp"]

# As on each GPU of the published setting; the losses depend on it.
_IMAGES_PER_POOL = 4
# Six decoder layers, each of which counts the losses of the auxiliary heads twice.
_AUXILIARY_WEIGHT = 12.0
# Weights of the classification of queries, next to 5 of L1 and 2 of GIoU: that of Co-DETR, but for
# IA-BCE that of Align-DETR and for the position-supervised loss that of Stable-DINO.
_CLS_WEIGHT, _CLS_WEIGHTS = 2.0, {"iabce": 1.0, "psl": 6.0}
_RANKED_PROPOSALS, _SCORED_PROPOSALS = (4000, 1000), (1000, 1000)


def use_loss(model, name):
    """Train all heads with one of LOSSES; numbers of proposals and images per pool stay."""
    dense = get_criterion(name, "atss")
    proposals = model.proposal_generator.get("post_nms_topk")
    if target_of(dense) is RankingCriterion:
        _use_ranking(model, dense.cls_loss)
    elif _is_dino(model) and name in ("focal", "qfl"):
        # As published, the queries have quality focal loss where the dense head has focal loss.
        _use_scores(model, dense, get_criterion("qfl", "atss"), cls_weight=1.0)
    else:
        _use_scores(model, dense, dense, _CLS_WEIGHTS.get(name, _CLS_WEIGHT))
    # The matching cost of Stable-DINO belongs to its loss.
    model.query_losses.matcher.position_power = 0.5 if name == "psl" else 0.0
    if proposals and tuple(proposals) not in (_RANKED_PROPOSALS, _SCORED_PROPOSALS):
        model.proposal_generator.post_nms_topk = proposals


def use_brs(model):
    """Train BRS-DETR: BRS Loss in all heads, nothing sampled, self-balanced boxes."""
    use_loss(model, "brs")


def use_rs(model):
    """Train with RS Loss in all heads, otherwise as BRS-DETR."""
    use_loss(model, "rs")


def use_brs_unbalanced(model):
    """Train Co-DINO as the published configs with BRS Loss are: queries with fixed box weights."""
    use_brs(model)
    model.query_losses.weight = 1.0
    for site in _sites(model):
        model.query_losses[site].update(
            balancer=L(ConstantBalancer)(), box_weights=dict(loss_l1=5.0, loss_giou=2.0)
        )
    model.proposal_generator.loss_weight = 0.2 * _AUXILIARY_WEIGHT
    # The L1 distance of corners in the frame.
    model.proposal_generator.criterion.criterion.box_loss = L(SmoothL1Loss)(beta=0.0)
    model.roi_heads.box_predictor.loss_weight = _AUXILIARY_WEIGHT
    model.dense_head.loss_weight = _AUXILIARY_WEIGHT


def use_focal(model):
    """Train Co-DETR as published: scores everywhere, in the R-CNN with cross-entropy.

    The queries of Co-Deformable-DETR and the dense head have focal loss, those of Co-DINO quality
    focal loss.
    """
    use_loss(model, "focal")


def _use_ranking(model, cls_loss):
    before = model.query_losses.get("decoder") or {}
    images_per_pool = before.get("images_per_pool", _IMAGES_PER_POOL)

    def ranked(box_loss):
        return L(RankingCriterion)(
            cls_loss=cls_loss,
            box_loss=box_loss,
            balancer=L(SelfBalancer)(),
            score_weighted=False,
            disjoint_is_negative=True,
            images_per_pool=images_per_pool,
        )

    sites = {site: ranked(_query_boxes()) for site in _sites(model)}
    model.query_losses.update(weight=2.0, **sites)
    model.query_losses.matcher.cls_weight = 4.0
    model.proposal_generator.update(
        # The published RPN compares boxes in this frame.
        criterion=L(UnitFrameCriterion)(criterion=ranked(L(GIoULoss)())),
        loss_weight=1.0,
        batch_size_per_image=None,
        post_nms_topk=_RANKED_PROPOSALS,
        # Boxes without area are kept.
        min_box_size=-1.0,
    )
    model.roi_heads.update(batch_size_per_image=None, proposal_append_gt=False)
    model.roi_heads.box_predictor.update(criterion=ranked(L(GIoULoss)()), loss_weight=5.0)
    model.dense_head.update(criterion=ranked(L(GIoULoss)()), loss_weight=5.0)
    _start(model, has_quality=False, prior_prob=0.01)


def _use_scores(model, dense, queries, cls_weight):
    """Train queries and dense head as criteria of ATSS say, the R-CNN with cross-entropy."""
    decoder, encoder = _scored(queries, cls_weight), _scored(queries, cls_weight)
    if target_of(queries.cls_loss) is ClassWeightedLoss and not _is_dino(model):
        encoder.cls_loss = queries.cls_loss.cls_loss  # all proposals are of one class
    if "correlation" in queries:
        # That of each stage of Sparse R-CNN.
        decoder.correlation = L(CorrelationLoss)(kind="concordance", weight=0.3 / cls_weight)
    sites = {site: encoder if site == "encoder" else decoder for site in _sites(model)}
    model.query_losses.update(weight=cls_weight, **sites)
    model.query_losses.matcher.cls_weight = 2.0
    model.proposal_generator.update(
        criterion=L(SigmoidCriterion)(
            cls_loss=L(BinaryCrossEntropyLoss)(),
            box_loss=L(SmoothL1Loss)(beta=0.0),
            normalizer="rows",
        ),
        loss_weight=_AUXILIARY_WEIGHT,
        batch_size_per_image=256,
        post_nms_topk=_SCORED_PROPOSALS,
        min_box_size=0.0,
    )
    model.roi_heads.update(batch_size_per_image=512, proposal_append_gt=True)
    model.roi_heads.box_predictor.update(
        criterion=L(SoftmaxCriterion)(box_loss=L(GIoULoss)(), box_weight=10.0),
        loss_weight=_AUXILIARY_WEIGHT,
    )
    model.dense_head.update(criterion=dense, loss_weight=_AUXILIARY_WEIGHT)
    prior_prob = 0.5 if target_of(dense.cls_loss) is DRLoss else 0.01
    _start(model, has_quality="quality" in dense, prior_prob=prior_prob)


def _start(model, *, has_quality, prior_prob):
    model.dense_head.head.update(has_quality=has_quality, prior_prob=prior_prob)
    model.query_head.prior_prob = prior_prob


def _is_dino(model):
    return target_of(model.query_head) is CoDINOHead


def _sites(model):
    """Names of the criteria of queries."""
    sites = ("decoder", "encoder", "custom")
    return (*sites, "denoising") if model.query_head.get("denoising") else sites


def _scored(dense, cls_weight):
    """Criterion of queries; `query_losses.weight` is the other factor of the published weights."""
    by_targets = dense.get("normalizer") == "targets"
    kept = ("target", "normalizer", "box_weighting") if by_targets else ("target",)
    return L(SigmoidCriterion)(
        cls_loss=dense.cls_loss,
        box_loss=_query_boxes(),
        box_weight=dict(loss_l1=5.0 / cls_weight, loss_giou=2.0 / cls_weight),
        sync_normalizer=True,
        **dict(normalizer="positives") | {key: dense[key] for key in kept if key in dense},
    )


def _query_boxes():
    # A plain dict would not be instantiated, and OmegaConf refuses `dict` itself.
    return L(OrderedDict)(loss_l1=L(SmoothL1Loss)(beta=0.0), loss_giou=L(GIoULoss)())
