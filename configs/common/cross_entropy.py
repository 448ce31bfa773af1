"""Changes that the score-based baselines make in an R-CNN laid out for the ranking losses."""

from .criteria import ce as _ce


def use_cross_entropy(model):
    """Train with sampled regions, cross-entropy and L1, and keep detections above a low score.

    In a cascade with the usual 2000 proposals and, from stage to stage, finer boxes and a smaller
    loss weight.
    """
    rpn, heads = model.proposal_generator, model.roi_heads
    rpn.update(criterion=_ce.rpn, loss_weight=1.0, batch_size_per_image=256)
    rpn.box2box_transform.weights = [1.0, 1.0, 1.0, 1.0]
    heads.batch_size_per_image = 512
    if "box_predictors" in heads:
        rpn.post_nms_topk = (2000, 1000)
    for stage, predictor in enumerate(heads.get("box_predictors", [heads.get("box_predictor")])):
        predictor.update(criterion=_ce.roi, test_score_thresh=0.05, loss_weight=0.5**stage)
        predictor.box2box_transform.weights = [w * (stage + 1) for w in (10.0, 10.0, 5.0, 5.0)]
    if "mask_head" in heads:
        heads.mask_head.criterion = _ce.mask
