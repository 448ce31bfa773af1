"""Another loss for a detector: its criteria at all sites, and what they need of the model."""

from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig

from brloss_d2.errors import InputError
from brloss_d2.model_zoo.configs import (
    config_files,
    config_folders,
    get_criterion,
    list_criteria,
    root,
)
from brloss_d2.model_zoo.entries import list_configs
from brloss_d2.utils.config_nodes import target_of
from brloss_d2.utils.suggest import did_you_mean

# Sites of the criteria by the assigner of a one-stage detector.
_SITES = {
    "ATSSAssigner": "atss",
    "PAAAssigner": "paa",
    "MaxIoUAssigner": "retinanet",
    "FoveaAssigner": "fovea",
    "TaskAlignedAssigner": "atss",
    "WarmupAssigner": "atss",
}
# Sites of the detectors with a criterion of masks next to that of the classes, by their class.
_MASK_SITES = {"YOLACT": "yolact", "SOLOv2": "solov2"}
_ROI_HEADS = ("CriterionROIHeads", "CriterionCascadeROIHeads")
# Losses whose scores are lower than the published threshold of the R-CNNs.
_LOW_SCORES = ("ce", "alrp")
_LOW_SCORE_THRESH = 0.05
# Losses whose RetinaNet has deltas in units of the anchor.
_ON_ANCHOR_UNITS = ("ce", "focal", "wce", "wfocal", "corr")
# Score at the start of training. DR Loss learns slowly from the scores that suit the others.
_PRIOR_PROB, _PRIOR_PROBS = 0.01, {"dr": 0.5}


def losses_of(model: DictConfig) -> list[str]:
    """Return the names of the losses that a detector can be trained with.

    Args:
        model: model node of a config; empty for a model that is not of this package.
    """
    if _is_rcnn(model):
        return list_criteria("roi")
    if _project_losses(model):
        return LazyConfig.load(_project_losses(model), ("LOSSES",))[0]
    return list_criteria(_site_of(model)) if _site_of(model) else []


def config_with_loss(path: str, loss: str) -> str:
    """Return the packaged config that trains the same detector, schedule and data with a loss.

    Args:
        path: path of a config file.
        loss: name of the loss.

    Returns:
        The path of the config; "" if the model zoo has none, or `path` is not part of it.
    """
    files = config_files()
    entries = [entry for entry in list_configs() if files[entry.name] == Path(path).resolve()]
    for own in entries:
        for other in list_configs():
            same = ("data", "detector", "backbone", "variant", "schedule")
            if other.loss == loss and all(getattr(own, k) == getattr(other, k) for k in same):
                return str(files[other.name])
    return ""


def set_loss(model: DictConfig, loss: str) -> DictConfig:
    """Train a detector with another loss; anchors, assignment, network and detections stay.

    Next to the criteria of all sites, what belongs to them changes: the branch for centerness or
    IoU, the units of RetinaNet's boxes, the background class and semantic head of YOLACT, the
    scores at the start for DR Loss, and in an R-CNN sampling, loss weights, box weights and, for
    losses with low scores, the score threshold. Pools keep their number of images. A project says
    itself what belongs to a loss, in `use_loss` of its `configs/common/losses.py`.

    Args:
        model: model node of a config, changed in place.
        loss: name of the loss, as in `list_criteria`.

    Returns:
        The same node.

    Raises:
        InputError: the detector cannot be trained with the loss.

    Example:
        >>> from brloss_d2 import model_zoo
        >>> cfg = model_zoo.get_config("quick/faster_rcnn_R_18_FPN_ce_300it")
        >>> model = model_zoo.set_loss(cfg.model, "rs")
        >>> "RankSortLoss" in str(model.roi_heads.box_predictor.criterion.cls_loss)
        True
    """
    known = losses_of(model)
    if loss not in known:
        hint = did_you_mean(loss, known, cutoff=0.5)
        if not known:
            raise InputError(f"loss={loss}: this model's loss can be changed in its config only.")
        if loss in list_criteria() and not hint:
            hint = f" {loss!r} is for one-stage detectors."
        raise InputError(
            f"loss={loss}: this detector has no such loss.{hint} Known losses: {', '.join(known)}."
        )
    if _is_rcnn(model):
        _set_loss_of_rcnn(model, loss)
        return model
    if _project_losses(model):
        (use_loss,) = LazyConfig.load(_project_losses(model), ("use_loss",))
        use_loss(model, loss)
        return model
    site = _site_of(model)
    if site == "yolact":
        old = {key: model[key] for key in ("criterion", "mask_criterion")}
        file = root() / "configs" / "common" / "yolact_loss.py"
        (use_loss,) = LazyConfig.load(str(file), ("use_loss",))
        use_loss(model, loss)
        for key, criterion in old.items():
            new, model[key] = model[key], criterion
            _replace(model, new, key=key)
        return model
    was_ranked = _target_name(model.criterion.get("cls_loss")) == "DRLoss"
    _replace(model, get_criterion(loss, site))
    if loss in _PRIOR_PROBS or was_ranked:
        model.head.prior_prob = _PRIOR_PROBS.get(loss, _PRIOR_PROB)
    if site == "solov2":
        _replace(model, get_criterion(loss, "solov2_mask"), key="mask_criterion")
        return model
    model.head.has_quality = model.criterion.get("quality") is not None
    if site == "retinanet":
        # L1 on deltas goes with deltas in units of the anchor, as published.
        in_anchors = loss in _ON_ANCHOR_UNITS
        model.box_transform.weights = [1.0] * 4 if in_anchors else [10.0, 10.0, 5.0, 5.0]
    return model


def _set_loss_of_rcnn(model: DictConfig, loss: str) -> None:
    heads = model.roi_heads
    predictors = heads.get("box_predictors") or [heads.box_predictor]
    before = [predictor.test_score_thresh for predictor in predictors]
    use, leave = LazyConfig.load(
        str(root() / "configs" / "common" / "cross_entropy.py"),
        ("use_cross_entropy", "leave_cross_entropy"),
    )
    if loss == "ce":
        use(model)
    else:
        if heads.get("batch_size_per_image") is not None:
            leave(model)
        _replace(model.proposal_generator, get_criterion(loss, "rpn"))
        for predictor in predictors:
            _replace(predictor, get_criterion(loss, "roi"))
        if "mask_head" in heads:
            _replace(heads.mask_head, get_criterion(loss, "mask"))
    for predictor, threshold in zip(predictors, before, strict=True):
        lowest = _LOW_SCORE_THRESH if loss in _LOW_SCORES else threshold
        predictor.test_score_thresh = min(threshold, lowest)


def _replace(node: DictConfig, criterion: DictConfig, *, key: str = "criterion") -> None:
    """Replace the criterion of a node; the size of its ranking pools stays, and an epoch."""
    old = node.get(key) or {}
    if "images_per_pool" in old and "images_per_pool" in criterion:
        own, kept = criterion.images_per_pool, old["images_per_pool"]
        criterion.images_per_pool = kept
        if own and kept and "pools_per_epoch" in (criterion.get("balancer") or {}):
            criterion.balancer.pools_per_epoch = criterion.balancer.pools_per_epoch * own // kept
    node[key] = criterion


def _is_rcnn(model: DictConfig) -> bool:
    return (
        _target_name(model.get("proposal_generator")) == "CriterionRPN"
        and _target_name(model.get("roi_heads")) in _ROI_HEADS
        and "query_head" not in model
    )


def _project_losses(model: DictConfig) -> str:
    """Return the file of a project that has LOSSES and `use_loss` for its detector, or ""."""
    module = getattr(target_of(model), "__module__", "")
    project = module.partition("brloss_d2.projects.")[2].partition(".")[0]
    folder = config_folders().get(f"{project}/")
    path = folder and folder / "common" / "losses.py"
    return str(path) if path and path.is_file() else ""


def _target_name(node: Any) -> str:
    return getattr(target_of(node), "__name__", "")


def _site_of(model: DictConfig) -> str:
    """Return the site of a one-stage detector; "" if the model is none of this package."""
    if own := _MASK_SITES.get(_target_name(model)):
        return own
    site = _SITES.get(_target_name(model.get("assigner")), "")
    # RetinaNet may have the assigner of ATSS, but not the learned scales of its head.
    if site == "atss" and "num_scaled_levels" not in model.head:
        return "retinanet"
    return site
