"""YAML (yacs) configurations of detectron2 that train recipes and criteria of the model zoo.

A configuration names either a recipe, whose model is then built as a whole, or a criterion for the
Faster, Cascade or Mask R-CNN that detectron2's own keys describe. Criteria and published settings
are those of the packaged configs; nothing is written here a second time.
"""

import logging
from collections.abc import Iterable, Iterator
from functools import cache, reduce
from typing import Any

from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
)
from detectron2.modeling.anchor_generator import ANCHOR_GENERATOR_REGISTRY, DefaultAnchorGenerator
from detectron2.utils.logger import log_first_n
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from brloss_d2.checkpoint import register_classifiers
from brloss_d2.errors import InputError
from brloss_d2.model_zoo import (
    get_config,
    get_criterion,
    list_configs,
    list_criteria,
    set_loss,
)
from brloss_d2.model_zoo.card import schedule_of
from brloss_d2.model_zoo.configs import config_files
from brloss_d2.utils.config_nodes import learns_masks, walk_nodes
from brloss_d2.utils.text import first_few

logger = logging.getLogger(__name__)

# Values that a YAML configuration decides on: key in the model of a recipe -> key in `cfg`.
_SETTINGS = {
    "num_classes": "MODEL.{heads}.NUM_CLASSES",
    "score_thresh": "MODEL.{heads}.SCORE_THRESH_TEST",
    "test_score_thresh": "MODEL.{heads}.SCORE_THRESH_TEST",
    "max_detections": "TEST.DETECTIONS_PER_IMAGE",
    "test_topk_per_image": "TEST.DETECTIONS_PER_IMAGE",
    "pools_per_epoch": "MODEL.BRLOSS.POOLS_PER_EPOCH",
    "pixel_mean": "MODEL.PIXEL_MEAN",
    "pixel_std": "MODEL.PIXEL_STD",
}
# Further keys that a recipe leaves to the configuration.
_LEFT = {f"MODEL.{key}" for key in ("META_ARCHITECTURE", "WEIGHTS", "DEVICE", "MASK_ON")}
# Keys without effect on an R-CNN with a criterion: on all, and on those that train without samples.
_REPLACED = [
    *("MODEL.RPN.BBOX_REG_LOSS_TYPE", "MODEL.RPN.BBOX_REG_LOSS_WEIGHT"),
    *("MODEL.RPN.SMOOTH_L1_BETA", "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE"),
    *("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT", "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA"),
]
_OF_SAMPLES = [
    *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", "MODEL.RPN.POSITIVE_FRACTION", "MODEL.RPN.LOSS_WEIGHT"),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "MODEL.ROI_HEADS.POSITIVE_FRACTION"),
]


def add_brloss_config(cfg: CfgNode, criterion: str = "", *, recipe: str = "") -> None:
    """Make a yacs configuration train a recipe of the model zoo, or an R-CNN with a criterion.

    With a recipe the whole model is the recipe's. Number of classes, score threshold, detections
    per image and pixel statistics are set in `cfg` as the recipe has them, and may be changed there
    afterwards: `MODEL.RETINANET` for one-stage detectors, `MODEL.ROI_HEADS` for all others. So are
    the image sizes and, for recipes that train with SGD, the solver. Other keys below `MODEL` have
    no effect; those that differ from detectron2's defaults are named in a warning.

    With a criterion alone, Faster, Cascade or Mask R-CNN stays as `cfg` describes it: its RPN, RoI
    heads and mask head are replaced by those of this package, and score threshold and box weights
    are set as published. `MODEL.BRLOSS.CRITERION` may be changed later: the heads then take the
    matching losses and sampling, while thresholds and weights stay as they are.

    Call it after `cfg.merge_from_file` of detectron2's configurations, which replace the heads
    again, and before your own settings. A configuration in which something else would be trained
    is refused, here or when the model is built. To read a configuration that was dumped, call it
    before `cfg.merge_from_file`, for the keys below `MODEL.BRLOSS` to exist.

    Args:
        cfg: configuration made by `detectron2.config.get_cfg`, changed in place.
        criterion: name of the criterion as in `brloss_d2.model_zoo.list_criteria("roi")`; "brs" if
            neither a criterion nor a recipe is given. With a recipe, the criterion that replaces
            the recipe's own.
        recipe: name of a config as in `brloss_d2.model_zoo.list_configs()`.

    Raises:
        InputError: there is no such criterion or recipe, or the configuration names parts of
            detectron2 that train without the criterion.

    Example:
        >>> from detectron2.config import get_cfg
        >>> from brloss_d2.modeling import add_brloss_config
        >>> cfg = get_cfg()
        >>> add_brloss_config(cfg, recipe="coco/atss_R_50_FPN_brs_1x")
        >>> cfg.MODEL.META_ARCHITECTURE, cfg.SOLVER.BASE_LR
        ('build_recipe_model', 0.008)
    """
    recipe = recipe or ""
    criterion = criterion or ("" if recipe else "brs")
    register_classifiers()  # for the MODEL.WEIGHTS of recipes
    ranking = _rcnn_layout("brs", "mask_rcnn")
    options = cfg.MODEL.BRLOSS = CfgNode()
    # Name of a config of the model zoo; "" if detectron2's keys describe an R-CNN.
    options.RECIPE = recipe
    # Name of the criterion; "" is the recipe's own.
    options.CRITERION = criterion
    # Weight of the RPN losses of a ranking criterion; others take `MODEL.RPN.LOSS_WEIGHT`.
    options.RPN_LOSS_WEIGHT = ranking.proposal_generator.loss_weight
    rpn_matcher = ranking.proposal_generator.anchor_matcher
    options.RPN_MIN_LOW_QUALITY_IOU = rpn_matcher.min_low_quality_iou
    # Mask R-CNN: each object takes its best proposal from this IoU on.
    options.MASK_MIN_LOW_QUALITY_IOU = ranking.roi_heads.proposal_matcher.min_low_quality_iou
    options.CASCADE_LOSS_WEIGHTS = (1.0, 1.0, 1.0)
    # Ranking pools per epoch, for the self-balancing of aLRP Loss; COCO in pools of 4 images.
    options.POOLS_PER_EPOCH = get_criterion("alrp", "roi").balancer.pools_per_epoch
    if cfg.MODEL.ANCHOR_GENERATOR.NAME == "DefaultAnchorGenerator":
        cfg.MODEL.ANCHOR_GENERATOR.NAME = "build_checked_anchor_generator"
    if recipe:
        _use_recipe(cfg)
    else:
        _use_criterion(cfg)
    check_config(cfg)


def _use_recipe(cfg: CfgNode) -> None:
    """Copy what the keys of detectron2 can express from the recipe to `cfg`."""
    name = cfg.MODEL.BRLOSS.RECIPE
    recipe = get_config(name)
    if cfg.MODEL.BRLOSS.CRITERION:
        _replace_criterion(recipe.model, name, cfg.MODEL.BRLOSS.CRITERION)
    mapper, schedule = recipe.dataloader.train.mapper, schedule_of(recipe)
    values = {path: node[key] for node, key, path in _settings(recipe.model)}
    values |= {
        "MODEL.META_ARCHITECTURE": "build_recipe_model",
        "MODEL.WEIGHTS": recipe.train.init_checkpoint,
        "MODEL.MASK_ON": learns_masks(recipe),
        "INPUT.MASK_FORMAT": mapper.get("instance_mask_format", "polygon"),
        "INPUT.FORMAT": recipe.model.input_format,
        **_image_sizes(recipe),
    }
    if schedule.optimizer == "SGD":
        values |= {
            "SOLVER.IMS_PER_BATCH": schedule.images_per_iteration,
            "SOLVER.BASE_LR": schedule.lr,
            "SOLVER.MOMENTUM": recipe.optimizer.momentum,
            "SOLVER.WEIGHT_DECAY": recipe.optimizer.weight_decay,
            "SOLVER.WEIGHT_DECAY_NORM": recipe.optimizer.weight_decay,
            "SOLVER.MAX_ITER": schedule.iterations,
            "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR"
            if schedule.milestones
            else "WarmupCosineLR",
            "SOLVER.STEPS": schedule.milestones,
            "SOLVER.GAMMA": schedule.factor,
            "SOLVER.WARMUP_ITERS": schedule.warmup_iterations,
            "SOLVER.WARMUP_FACTOR": schedule.warmup_factor,
        }
    for path, value in values.items():
        cfg.merge_from_list([path, list(value) if isinstance(value, ListConfig) else value])
    left = {
        f"its optimizer {schedule.optimizer}": schedule.optimizer != "SGD",
        "its augmentations": "INPUT.MAX_SIZE_TRAIN" not in values,
        "its sampler": "sampler" in recipe.dataloader.train,
        "the steps of its cosine": "num_steps" in recipe.lr_multiplier.get("scheduler", {}),
        # detectron2 clips each parameter alone.
        "its clipping of gradients": schedule.optimizer == "SGD" and recipe.train.clip_grad_norm,
    }
    if any(left.values()):
        logger.warning(
            "The keys of detectron2 cannot express all of %s: take %s from "
            "brloss_d2.model_zoo.get_config(%r).",
            *(name, " and ".join(text for text, is_left in left.items() if is_left), name),
        )


def _image_sizes(recipe: DictConfig) -> dict[str, Any]:
    """Return the values of `INPUT` for the resizing of a recipe; fewer if it is of another kind."""
    values = {}
    for resize in recipe.dataloader.train.mapper.augmentations:
        if "short_edge_length" in resize:
            values["INPUT.MIN_SIZE_TRAIN"] = tuple(resize.short_edge_length)
            values["INPUT.MIN_SIZE_TRAIN_SAMPLING"] = resize.sample_style
            values["INPUT.MAX_SIZE_TRAIN"] = resize.max_size
    for resize in recipe.dataloader.test.mapper.augmentations:
        if "short_edge_length" in resize:
            values["INPUT.MIN_SIZE_TEST"] = resize.short_edge_length
            values["INPUT.MAX_SIZE_TEST"] = resize.max_size
    return values


def _use_criterion(cfg: CfgNode) -> None:
    """Replace the heads of an R-CNN and set the published thresholds and box weights."""
    name = cfg.MODEL.BRLOSS.CRITERION
    if name not in list_criteria("roi"):
        known = ", ".join(list_criteria("roi"))
        hint = "; others need a recipe" if name in list_criteria() else ""
        raise InputError(f"unknown criterion {name!r} of an R-CNN, expected one of {known}{hint}.")
    faster, cascade = _rcnn_layout(name, "faster_rcnn"), _rcnn_layout(name, "cascade_rcnn")
    stages = cascade.roi_heads.box_predictors
    cfg.MODEL.BRLOSS.CASCADE_LOSS_WEIGHTS = tuple(x.loss_weight for x in stages)
    if cfg.MODEL.META_ARCHITECTURE == "build_recipe_model":  # of an earlier call
        cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    if cfg.MODEL.ROI_HEADS.NAME == "CascadeROIHeads":
        cfg.MODEL.ROI_HEADS.NAME = "CriterionCascadeROIHeads"
        if is_ranking(name):
            cfg.MODEL.RPN.BOUNDARY_THRESH = cascade.proposal_generator.anchor_boundary_thresh
    else:
        cfg.MODEL.ROI_HEADS.NAME = "CriterionROIHeads"
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "CriterionRPN"
    cfg.MODEL.ROI_MASK_HEAD.NAME = "CriterionMaskHead"
    cfg.MODEL.RPN.BBOX_REG_WEIGHTS = tuple(faster.proposal_generator.box2box_transform.weights)
    cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS = tuple(
        tuple(x.box2box_transform.weights) for x in stages
    )
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = faster.roi_heads.box_predictor.test_score_thresh


@META_ARCH_REGISTRY.register()
def build_recipe_model(cfg: CfgNode) -> nn.Module:
    """Build the model of `MODEL.BRLOSS.RECIPE` with the values of `cfg`."""
    return instantiate(recipe_model(cfg))


def recipe_parts(cfg: CfgNode) -> dict[str, Any]:
    """Build the arguments of the model of `MODEL.BRLOSS.RECIPE`, for `from_config`."""
    model = recipe_model(cfg)
    return {str(key): instantiate(model[key]) for key in model if key != "_target_"}


def recipe_model(cfg: CfgNode) -> DictConfig:
    """Return the model node of `MODEL.BRLOSS.RECIPE` with the values of `cfg`.

    Raises:
        InputError: there is no such recipe, its criterion cannot be replaced by
            `MODEL.BRLOSS.CRITERION`, or `INPUT.FORMAT` is not the recipe's order of colors.
    """
    name = cfg.MODEL.BRLOSS.RECIPE
    model = get_config(name).model
    if model.input_format != cfg.INPUT.FORMAT:
        raise InputError(
            f"INPUT.FORMAT is {cfg.INPUT.FORMAT}, but {name} takes {model.input_format} images: "
            f"call add_brloss_config(cfg, recipe={name!r}), which sets all that belongs to it."
        )
    if cfg.MODEL.BRLOSS.CRITERION:
        _replace_criterion(model, name, cfg.MODEL.BRLOSS.CRITERION)
    used = {*_LEFT, "MODEL.ANCHOR_GENERATOR.NAME"}
    for node, key, path in list(_settings(model)):
        node[key] = reduce(getattr, path.split("."), cfg)
        used.add(path)
    ignored = (key for key in _keys(get_cfg().MODEL, "MODEL.") if key not in used)
    _warn_of(cfg, ignored, f"the model is that of {name}")
    return model


def _replace_criterion(model: DictConfig, recipe: str, criterion: str) -> None:
    """Train a recipe with another criterion; anchors, assignment and network stay."""
    if "mask_criterion" in model:  # with parts that belong to a loss
        set_loss(model, criterion)
        return
    (entry,) = list_configs(name=recipe)
    size = "_500s" if "500s" in entry.schedule else ""
    if "criterion" in model:  # a one-stage detector
        model.criterion = get_criterion(criterion, entry.detector + size)
        model.head.has_quality = model.criterion.get("quality") is not None
        return
    if "query_head" in model or is_ranking(criterion) != is_ranking(entry.loss):
        raise InputError(
            f"The criterion of {recipe} cannot be replaced by {criterion!r}, which is trained with "
            "other samples: name a recipe that was laid out for it."
        )
    heads = model.roi_heads
    model.proposal_generator.criterion = get_criterion(criterion, f"rpn{size}")
    for predictor in heads.get("box_predictors", [heads.get("box_predictor")]):
        predictor.criterion = get_criterion(criterion, f"roi{size}")
    if "mask_head" in heads:
        heads.mask_head.criterion = get_criterion(criterion, "mask")


def build_criterion(cfg: CfgNode, site: str) -> nn.Module:
    """Build the criterion `MODEL.BRLOSS.CRITERION` for the site "rpn", "roi" or "mask"."""
    node = get_criterion(cfg.MODEL.BRLOSS.CRITERION, site)
    if "pools_per_epoch" in node.get("balancer", {}):
        node.balancer.pools_per_epoch = cfg.MODEL.BRLOSS.POOLS_PER_EPOCH
    return instantiate(node)


def is_ranking(criterion: str) -> bool:
    """Return whether an R-CNN trains on all regions under a criterion, instead of a sample."""
    return _rcnn_layout(criterion, "faster_rcnn").roi_heads.batch_size_per_image is None


@ANCHOR_GENERATOR_REGISTRY.register()
def build_checked_anchor_generator(cfg: CfgNode, input_shape: list[ShapeSpec]) -> nn.Module:
    """Build detectron2's `DefaultAnchorGenerator` after `check_config`.

    Files merged after `add_brloss_config` may name heads of detectron2 again. Those heads know
    nothing of criteria, but all of them build anchors.
    """
    check_config(cfg)
    criterion = cfg.MODEL.BRLOSS.CRITERION
    if criterion:
        ignored = [*_REPLACED, *(_OF_SAMPLES if is_ranking(criterion) else ())]
        _warn_of(cfg, ignored, f"the criterion {criterion!r} decides on that")
    return DefaultAnchorGenerator(cfg, input_shape)


def check_config(cfg: CfgNode) -> None:
    """Refuse a configuration that would train something else than it says.

    Raises:
        InputError: the recipe is not built, or a head of detectron2 would train without the
            criterion.
    """
    model = cfg.MODEL
    name, recipe, criterion = model.META_ARCHITECTURE, model.BRLOSS.RECIPE, model.BRLOSS.CRITERION
    if recipe:
        if META_ARCH_REGISTRY.get(name).__module__.startswith("detectron2."):
            raise InputError(
                f"MODEL.BRLOSS.RECIPE is {recipe}, but MODEL.META_ARCHITECTURE is {name}: call "
                "add_brloss_config after merge_from_file."
            )
        return
    if name == "RetinaNet":
        raise InputError(
            f"detectron2's RetinaNet trains with focal loss alone, not with {criterion!r}: name a "
            f"recipe, add_brloss_config(cfg, recipe='coco/retinanet_R_50_FPN_brs_1x')."
        )
    used = [("PROPOSAL_GENERATOR", PROPOSAL_GENERATOR_REGISTRY, "CriterionRPN")]
    if name != "ProposalNetwork":
        used.append(("ROI_HEADS", ROI_HEADS_REGISTRY, "CriterionROIHeads"))
        if model.MASK_ON:
            used.append(("ROI_MASK_HEAD", ROI_MASK_HEAD_REGISTRY, "CriterionMaskHead"))
    for key, registry, ours in used:
        part = model[key].NAME
        if part in registry and registry.get(part).__module__.startswith("detectron2."):
            ours = "CriterionCascadeROIHeads" if part == "CascadeROIHeads" else ours
            raise InputError(
                f"MODEL.{key}.NAME is {part}, which trains without the criterion {criterion!r}: "
                f"set it to {ours}, or call add_brloss_config after merge_from_file."
            )


@cache
def _rcnn_layout(criterion: str, detector: str) -> DictConfig:
    """Return the model of the recipe of a criterion, or of BRS if it has none. Do not change it."""
    name = f"coco/{detector}_R_50_FPN_{{}}_1x"
    own = name.format(criterion)
    return get_config(own if own in config_files() else name.format("brs")).model


def _keys(node: CfgNode, prefix: str) -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _warn_of(cfg: CfgNode, ignored: Iterable[str], reason: str) -> None:
    """Warn of keys without effect that differ from detectron2's defaults, once."""
    defaults = get_cfg()
    changed = [
        key
        for key in ignored
        if reduce(getattr, key.split("."), cfg) != reduce(getattr, key.split("."), defaults)
    ]
    if changed:
        text = f"Keys of the YAML configuration without effect, because {reason}: "
        log_first_n(
            logging.WARNING, text + first_few(changed, count=8), name=__name__, key="message"
        )


def _settings(model: DictConfig) -> Iterator[tuple[DictConfig, str, str]]:
    """Yield node, key and the key in `cfg` of each value that a YAML configuration decides on."""
    heads = "ROI_HEADS" if "roi_heads" in model else "RETINANET"
    for node in walk_nodes(model):
        for key in _SETTINGS.keys() & node.keys():
            if not OmegaConf.is_interpolation(node, key):
                yield node, str(key), _SETTINGS[key].format(heads=heads)
