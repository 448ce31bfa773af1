"""Changes that the score-based baselines make in an R-CNN laid out for the ranking losses."""

from detectron2.config import LazyCall as L

from brloss_d2.losses import GIoULoss

from .criteria import ce as _ce
from .models.cascade_rcnn_fpn import model as _cascade
from .models.faster_rcnn_fpn import model as _faster


def use_cross_entropy(model):
    """Train with sampled regions, cross-entropy and L1, and keep detections above a low score.

    In a cascade with the usual 2000 proposals and, from stage to stage, finer boxes and a smaller
    loss weight.
    """
    rpn, heads = model.proposal_generator, model.roi_heads
    rpn.update(criterion=_ce.rpn, loss_weight=1.0, batch_size_per_image=256)
    rpn.box2box_transform.weights = [1.0, 1.0, 1.0, 1.0]
    if "box_predictors" in heads:
        rpn.post_nms_topk = (2000, 1000)
    proposals = rpn.post_nms_topk[0]
    heads.batch_size_per_image = 512 if proposals > 512 else max(proposals // 2, 1)
    for stage, predictor in enumerate(heads.get("box_predictors", [heads.get("box_predictor")])):
        predictor.update(criterion=_ce.roi, test_score_thresh=0.05, loss_weight=0.5**stage)
        predictor.box2box_transform.weights = [w * (stage + 1) for w in (10.0, 10.0, 5.0, 5.0)]
    if "mask_head" in heads:
        heads.mask_head.criterion = _ce.mask


def use_giou(model):
    """Train the boxes of the second stage with GIoU Loss, weight 10, instead of L1."""
    model.roi_heads.box_predictor.criterion.update(box_loss=L(GIoULoss)(), box_weight=10.0)


def leave_cross_entropy(model):
    """Lay an R-CNN out for the ranking losses again; the score threshold stays low."""
    rpn, heads = model.proposal_generator, model.roi_heads
    layout = _cascade if "box_predictors" in heads else _faster
    own = layout.proposal_generator
    rpn.update(loss_weight=own.loss_weight, batch_size_per_image=own.batch_size_per_image)
    rpn.box2box_transform.weights = own.box2box_transform.weights
    heads.batch_size_per_image = layout.roi_heads.batch_size_per_image
    if "box_predictors" in heads:
        rpn.post_nms_topk = own.post_nms_topk
    for predictor in heads.get("box_predictors", [heads.get("box_predictor")]):
        predictor.loss_weight = 1.0
        predictor.box2box_transform.weights = (
            _faster.roi_heads.box_predictor.box2box_transform.weights
        )
