"""YAML (yacs) users: recipes of every detector train, and nothing else is trained silently."""

import logging
from collections.abc import Callable

import pytest
import torch
from detectron2 import model_zoo as stock
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.structures import BitMasks
from detectron2.utils.events import EventStorage
from detectron2.utils.logger import log_first_n

from brloss_d2.errors import InputError
from brloss_d2.losses import GIoULoss, RankSortLoss
from brloss_d2.model_zoo import get_criterion, list_configs
from brloss_d2.modeling import CriterionCascadeROIHeads, CriterionMaskHead, add_brloss_config
from brloss_d2.modeling.rcnn.box_predictor import CriterionBoxPredictor
from brloss_d2.modeling.yaml import build_checked_anchor_generator, recipe_model
from tests.helpers.criteria import build_criterion
from tests.helpers.random_inputs import random_inputs

CLASSES = 3
CASCADE_MASK = "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml"
MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"


def recipe_config(name: str) -> CfgNode:
    cfg = get_cfg()
    add_brloss_config(cfg, recipe=name)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = CLASSES
    return cfg


def stock_config(file: str) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(stock.get_config_file(file))
    cfg.MODEL.DEVICE = "cpu"
    return cfg


# One of each detector, slim where there is a slim one.
RECIPES = [
    *(
        f"quick/{x}_R_18_FPN_brs_300it"
        for x in ("faster_rcnn", "atss", "paa", "retinanet", "fovea")
    ),
    *("coco/cascade_rcnn_R_50_FPN_brs_1x", "quick/mask_rcnn_R_18_FPN_rs_300it"),
    *("quick/yolact_R_18_brs_300it", "quick/solov2_R_18_FPN_focal_300it"),
    *(f"co_detr/quick/{x}_R_18_brs_300it" for x in ("co_deformable_detr", "co_dino")),
]
# The same detectors in other sizes.
OTHER_SIZES = {"solov2_light", "co_dino_5scale", "co_dino_5scale_9encoder"}


def test_every_detector_is_among_the_recipes() -> None:
    detectors = {entry.detector for entry in list_configs()}
    among = {entry.detector for entry in list_configs() if entry.name in RECIPES}
    assert detectors == among | OTHER_SIZES


@pytest.mark.parametrize("name", RECIPES)
def test_every_detector_trains_a_step(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(recipe_config(name)).train()
    batch = random_inputs(2, 1, num_classes=CLASSES)
    for image in batch:
        size = image["instances"].image_size
        image["instances"].gt_masks = BitMasks(torch.ones(len(image["instances"]), *size))
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    assert losses and all(v.isfinite() for v in losses.values())
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("name", [entry.name for entry in list_configs()])
def test_every_recipe_is_reachable(name: str) -> None:
    """Its model takes classes, thresholds and numbers of detections from the configuration."""
    cfg = recipe_config(name)
    cfg.TEST.DETECTIONS_PER_IMAGE = 7
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.125
    model = recipe_model(cfg)
    one_stage, co_detr = "head" in model, "query_head" in model
    owner = model if one_stage else model.query_head if co_detr else model.roi_heads
    assert owner.num_classes == CLASSES
    if one_stage:
        steps = model.postprocessor
        found = [((steps.get("select") or steps).score_thresh, steps.max_detections)]
    elif co_detr:
        found = [(0.125, model.max_detections)]
    else:
        heads = owner.get("box_predictors") or [owner.box_predictor]
        found = [(x.test_score_thresh, x.test_topk_per_image) for x in heads]
    assert set(found) == {(0.125, 7)}


def test_a_recipe_sets_what_the_keys_can_express() -> None:
    cfg = get_cfg()
    add_brloss_config(cfg, recipe="coco/mask_rcnn_R_101_FPN_brs_3x")
    solver, size = cfg.SOLVER, cfg.INPUT
    assert (solver.BASE_LR, solver.IMS_PER_BATCH, solver.MAX_ITER) == (0.012, 16, 263880)
    assert (solver.STEPS, solver.WARMUP_ITERS) == ((197910, 241890), 500)
    assert pytest.approx([0.1, 0.001]) == [solver.GAMMA, solver.WARMUP_FACTOR]
    assert solver.WEIGHT_DECAY == solver.WEIGHT_DECAY_NORM == 1e-4
    assert size.MIN_SIZE_TRAIN == (640, 672, 704, 736, 768, 800)
    assert (size.MIN_SIZE_TRAIN_SAMPLING, size.MAX_SIZE_TRAIN) == ("choice", 1333)
    assert (size.MIN_SIZE_TEST, size.MAX_SIZE_TEST, size.FORMAT) == (800, 1333, "RGB")
    assert cfg.MODEL.MASK_ON and size.MASK_FORMAT == "bitmask"
    assert cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0.40
    assert cfg.MODEL.PIXEL_MEAN == [123.675, 116.28, 103.53]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coco/fovea_R_50_FPN_alrp_500s_100e", "take its augmentations from"),
        ("lvis_v1/mask_rcnn_R_50_FPN_rs_1x", "take its sampler from"),
        ("co_detr/co_deformable_detr_R_50_brs_1x", "its optimizer AdamW and its augmentations"),
    ],
)
def test_what_the_keys_cannot_express_is_told(
    name: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "brloss_d2.modeling.yaml"):
        add_brloss_config(get_cfg(), recipe=name)
    assert message in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "brloss_d2.modeling.yaml"):
        add_brloss_config(get_cfg(), recipe="coco/atss_R_50_FPN_brs_1x")
    assert not caplog.text


@pytest.mark.parametrize(
    ("recipe", "criterion"),
    [
        ("coco/faster_rcnn_R_50_FPN_brs_1x", "ce"),
        ("coco/cascade_rcnn_R_50_FPN_ce_1x", "rs"),
        ("co_detr/co_deformable_detr_R_50_brs_1x", "rs"),
    ],
)
def test_criteria_that_need_another_recipe(recipe: str, criterion: str) -> None:
    cfg = get_cfg()
    message = f"{recipe} cannot be replaced by '{criterion}'"
    with pytest.raises(InputError, match=message):
        add_brloss_config(cfg, criterion, recipe=recipe)
    add_brloss_config(cfg, recipe=recipe)
    cfg.MODEL.BRLOSS.CRITERION = criterion
    with pytest.raises(InputError, match=message):
        build_model(cfg)


def test_a_recipe_with_another_criterion() -> None:
    cfg = get_cfg()
    add_brloss_config(cfg, "bap", recipe="coco/mask_rcnn_R_50_FPN_brs_1x")
    heads = recipe_model(cfg).roi_heads
    assert heads.box_predictor.criterion.cls_loss._target_.__name__ == "BucketedAPLoss"
    assert heads.mask_head.criterion.mask_loss._target_.__name__ == "DiceLoss"
    cfg = get_cfg()
    add_brloss_config(cfg, "ap", recipe="coco/fovea_R_50_FPN_alrp_500s_100e")
    assert recipe_model(cfg).criterion.images_per_pool == 8
    cfg = get_cfg()
    add_brloss_config(cfg, "brs", recipe="coco/faster_rcnn_R_50_FPN_alrp_500s_100e")
    model = recipe_model(cfg)
    for head in (model.proposal_generator, model.roi_heads.box_predictor):
        assert head.criterion.images_per_pool == 8


def test_recipes_of_masks(caplog: pytest.LogCaptureFixture) -> None:
    for recipe, criterion, schedule, left in (
        ("yolact_R_50_rs_55e", "ce", "WarmupCosineLR", "augmentations and the steps of its cosine"),
        ("solov2_R_101_FPN_rs_3x", "bap", "WarmupMultiStepLR", "its clipping of gradients"),
    ):
        cfg = get_cfg()
        caplog.clear()
        add_brloss_config(cfg, criterion, recipe=f"coco/{recipe}")
        assert schedule == cfg.SOLVER.LR_SCHEDULER_NAME and left in caplog.text
        assert (cfg.MODEL.MASK_ON, cfg.INPUT.MASK_FORMAT) == (True, "bitmask")
        cfg.MODEL.RETINANET.NUM_CLASSES = 3
        model, site = recipe_model(cfg), recipe.partition("_")[0]
        assert model.num_classes == 3
        assert model.criterion._target_ == get_criterion(criterion, site)._target_
        if criterion == "ce":
            assert model.head.has_background and model.semantic_head is not None
        else:
            assert model.criterion.images_per_pool == model.mask_criterion.images_per_pool == 4


def test_pools_per_epoch() -> None:
    for recipe, criterion in (
        ("coco/fovea_R_50_FPN_alrp_500s_100e", ""),
        ("coco/fovea_R_50_FPN_focal_500s_100e", "alrp"),
    ):
        cfg = get_cfg()
        add_brloss_config(cfg, criterion, recipe=recipe)
        assert cfg.MODEL.BRLOSS.POOLS_PER_EPOCH == 3665
        cfg.MODEL.BRLOSS.POOLS_PER_EPOCH = 10
        assert recipe_model(cfg).criterion.balancer.pools_per_epoch == 10


class TestStockConfigurations:
    """detectron2's own YAML files, with a criterion before or after them."""

    @pytest.mark.parametrize("name", ["ce", "rs"])
    def test_a_cascade_stays_one(self, name: str) -> None:
        cfg = stock_config(CASCADE_MASK)
        add_brloss_config(cfg, name)
        model = build_model(cfg)
        heads = model.roi_heads
        assert isinstance(heads, CriterionCascadeROIHeads)
        assert isinstance(heads.mask_head, CriterionMaskHead)
        expected = build_criterion(name, "roi")
        assert [repr(x.criterion) for x in heads.box_predictor] == [repr(expected)] * 3
        assert model.proposal_generator.anchor_boundary_thresh == (-1 if name == "ce" else 0)

    def test_mask_rcnn(self) -> None:
        cfg = stock_config(MASK)
        add_brloss_config(cfg, "rs")
        heads = build_model(cfg).roi_heads
        assert repr(heads.box_predictor.criterion) == repr(build_criterion("rs", "roi"))
        assert repr(heads.mask_head.criterion) == repr(build_criterion("rs", "mask"))

    def test_retinanet_is_refused(self) -> None:
        cfg = stock_config(RETINANET)
        with pytest.raises(InputError, match="RetinaNet trains with focal loss alone, not with 'r"):
            add_brloss_config(cfg, "rs")
        cfg = get_cfg()
        add_brloss_config(cfg, "rs")
        cfg.merge_from_file(stock.get_config_file(RETINANET))
        with pytest.raises(InputError, match=r"name a recipe, add_brloss_config\(cfg, recipe="):
            build_model(cfg)

    @pytest.mark.parametrize(
        ("file", "message"),
        [
            (CASCADE_MASK, "NAME is CascadeROIHeads.*set it to CriterionCascadeROIHeads"),
            (MASK, "NAME is StandardROIHeads, which trains without the criterion 'brs'"),
        ],
    )
    def test_a_file_that_brings_its_heads_back_is_refused(self, file: str, message: str) -> None:
        cfg = get_cfg()
        add_brloss_config(cfg)
        cfg.merge_from_file(stock.get_config_file(file))
        cfg.MODEL.DEVICE = "cpu"
        with pytest.raises(InputError, match=message):
            build_model(cfg)

    def test_heads_one_by_one(self) -> None:
        for key, name in (
            ("PROPOSAL_GENERATOR", "RPN"),
            ("ROI_MASK_HEAD", "MaskRCNNConvUpsampleHead"),
        ):
            cfg = stock_config(MASK)
            add_brloss_config(cfg)
            cfg.MODEL[key].NAME = name
            with pytest.raises(InputError, match=f"MODEL.{key}.NAME is {name}"):
                build_model(cfg)

    def test_a_detector_without_a_pyramid(self) -> None:
        cfg = stock_config("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml")
        add_brloss_config(cfg)
        with pytest.raises(InputError, match=r"ROI_BOX_HEAD\.NAME is empty"):
            build_model(cfg)


@pytest.mark.parametrize("file", [MASK, RETINANET])
def test_a_recipe_that_is_not_built_is_refused(file: str) -> None:
    cfg = get_cfg()
    add_brloss_config(cfg, recipe="quick/atss_R_18_FPN_brs_300it")
    cfg.merge_from_file(stock.get_config_file(file))
    cfg.MODEL.DEVICE = "cpu"
    with pytest.raises(
        InputError, match=r"RECIPE is quick/atss.*call add_brloss_config after merge_from_file"
    ):
        build_model(cfg)


def test_a_recipe_by_its_key_alone() -> None:
    """The order of colors is not that of the recipe, which `add_brloss_config` would have set."""
    cfg = get_cfg()
    add_brloss_config(cfg)
    cfg.MODEL.BRLOSS.RECIPE = "quick/atss_R_18_FPN_brs_300it"
    cfg.MODEL.META_ARCHITECTURE = "build_recipe_model"
    with pytest.raises(InputError, match=r"INPUT.FORMAT is BGR, but quick/atss.* takes RGB"):
        build_model(cfg)
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.DEVICE = "cpu"
    assert type(build_model(cfg)).__name__ == "OneStageDetector"


def test_keys_without_effect_are_named(caplog: pytest.LogCaptureFixture) -> None:
    log_first_n.__globals__["_LOG_COUNTER"].clear()
    cfg = get_cfg()
    add_brloss_config(cfg, recipe="quick/atss_R_18_FPN_brs_300it")
    caplog.clear()
    recipe_model(cfg)
    assert not caplog.text
    cfg.MODEL.RESNETS.DEPTH = 101
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.3  # has an effect
    recipe_model(cfg)
    recipe_model(cfg)
    assert caplog.text.count("MODEL.") == caplog.text.count("MODEL.RESNETS.DEPTH") == 1


@pytest.mark.parametrize(("criterion", "count"), [("rs", 2), ("ce", 1)])
def test_keys_that_a_criterion_replaces_are_named(
    criterion: str, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    log_first_n.__globals__["_LOG_COUNTER"].clear()
    cfg = get_cfg()
    add_brloss_config(cfg, criterion)
    shape = [ShapeSpec(stride=16)]
    with caplog.at_level(logging.WARNING, "brloss_d2.modeling.yaml"):
        build_checked_anchor_generator(cfg, shape)
        assert not caplog.text
        cfg.MODEL.RPN.SMOOTH_L1_BETA = 0.5
        cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 64
        build_checked_anchor_generator(cfg, shape)
    assert "MODEL.RPN.SMOOTH_L1_BETA" in caplog.text
    assert caplog.text.count("MODEL.") == count


@pytest.mark.parametrize(
    "make",
    [
        lambda: CriterionMaskHead(
            ShapeSpec(channels=4), criterion=RankSortLoss(), num_classes=3, conv_dims=[4]
        ),
        lambda: CriterionBoxPredictor(
            ShapeSpec(channels=4), criterion=GIoULoss(), box2box_transform=None, num_classes=3
        ),
    ],
)
def test_parts_of_another_kind_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="criterion must be of type"):
        make()
