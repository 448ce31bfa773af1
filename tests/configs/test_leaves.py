"""Every leaf config: loads, is what its name says, instantiates, survives a round trip."""

import ast
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from brloss_d2.criteria import SoftmaxCriterion
from brloss_d2.engine import load_config
from brloss_d2.engine.config.values import check_values
from brloss_d2.errors import InputError
from brloss_d2.losses import GIoULoss
from brloss_d2.modeling import ATSSAssigner, DeformableBottleneckBlock, MaxIoUAssigner
from tests.helpers.configs import build_without_weights
from tests.helpers.criteria import ONE_STAGE, build_criterion

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
FOLDERS = [CONFIGS, *ROOT.glob("projects/*/configs")]
LEAVES = sorted(p for folder in FOLDERS for p in folder.rglob("*.py") if "common" not in p.parts)
KEYS = {"model", "optimizer", "lr_multiplier", "dataloader", "train"}
NAME = re.compile(
    r"(?P<arch>(faster|mask|cascade)_rcnn|atss|paa|retinanet|fovea|solov2(_light)?)"
    r"_(?P<depth>R_\d+|X_101_64x4d)(?P<dcn>_DCN)?_(?P<neck>(CARAFE_)?FPN)"
    r"_(?P<loss>[a-z]+)(_(?P<variant>g?iou))?(_(?P<schedule>\w+))?"
)
# Detectors whose neck has no other form.
NAME_WITHOUT_NECK = re.compile(
    r"(?P<arch>yolact|co_deformable_detr|co_dino(_5scale(_9encoder)?)?)"
    r"_(?P<depth>R_\d+|swin_[tl])"
    r"_(?P<loss>[a-z]+)_(?P<schedule>\w+)"
)
DEPTHS = {"R_18": [2, 2, 2, 2], "R_50": [3, 4, 6, 3], "R_101": [3, 4, 23, 3]}
DEPTHS["R_34"] = DEPTHS["R_50"]
DEPTHS["X_101_64x4d"] = DEPTHS["R_101"]
ITERATIONS = {
    "coco": {
        "1x": 87960,
        "27e": 197910,
        "3x": 263880,
        "500s_100e": 366500,
        "800s_100e": 733000,
        "55e": 201575,
    },
    "lvis_v1": {"1x": 92088},
    "cityscapes": {None: 17796},
    "quick": {"300it": 300, "3000it": 3000},
    # With the images that have no objects.
    "configs": {"unbalanced_1x": 88716, "o365_16e": 118288}
    | {f"{x}{n}x": 88716 * n for x in ("", "lsj_") for n in (1, 2, 3)},
}
ITERATIONS_LIGHT = 131940  # of SOLOv2, 32 images each
ONE_STAGE_BASELINES = [(arch, "focal") for arch in ONE_STAGE]
CLASSES = {"coco": 80, "lvis_v1": 1203, "cityscapes": 8, "quick": 80}
# Detectors with masks and without regions, and the sites of their criteria.
INSTANCE = {"yolact": "yolact", "solov2": "solov2", "solov2_light": "solov2"}
SWIN = {"swin_t": ([2, 2, 6, 2], 96, 7), "swin_l": ([2, 2, 18, 2], 192, 12)}


@pytest.fixture(params=LEAVES, ids=lambda p: str(p.relative_to(ROOT)))
def leaf(request):
    return request.param


@pytest.fixture
def tokens(leaf):
    match = NAME.fullmatch(leaf.stem) or NAME_WITHOUT_NECK.fullmatch(leaf.stem)
    assert match, f"{leaf.name} is not <arch>_<backbone>[_<neck>]_<loss>_<schedule>.py"
    return match.groupdict()


@pytest.fixture
def cfg(leaf):
    return LazyConfig.load(str(leaf))


def test_there_are_leaves():
    names = {p.stem for p in LEAVES if p.parent.name == "coco"}
    assert names >= {f"faster_rcnn_R_50_FPN_{x}_1x" for x in ("ce", "rs", "brs", "bap", "alrp")}
    for loss in ("ce", "rs", "brs"):
        assert names >= {f"cascade_rcnn_R_50_FPN_{loss}_{x}" for x in ("1x", "3x")}
        assert names >= {f"mask_rcnn_R_50_FPN_{loss}_{x}" for x in ("1x", "27e")}
        assert f"mask_rcnn_R_101_FPN_{loss}_3x" in names
        assert (CONFIGS / f"lvis_v1/mask_rcnn_R_50_FPN_{loss}_1x.py") in LEAVES
        assert (CONFIGS / f"cityscapes/mask_rcnn_R_50_FPN_{loss}.py") in LEAVES
    assert names >= {
        "faster_rcnn_R_50_CARAFE_FPN_rs_1x",
        "faster_rcnn_R_101_DCN_CARAFE_FPN_rs_3x",
        "mask_rcnn_R_50_CARAFE_FPN_rs_1x",
        "mask_rcnn_R_101_CARAFE_FPN_rs_3x",
        "mask_rcnn_R_101_DCN_CARAFE_FPN_rs_3x",
        "mask_rcnn_X_101_64x4d_DCN_CARAFE_FPN_rs_3x",
    }
    for arch in ("atss", "paa"):
        losses = ("focal", "ap", "bap", "rs", "brs")
        assert names >= {f"{arch}_R_50_FPN_{x}_1x" for x in losses}
    losses = ("focal", "ap", "alrp", "rs", "brs")
    assert names >= {f"retinanet_R_50_FPN_{x}_1x" for x in losses}
    assert names >= {f"yolact_R_50_{x}_55e" for x in ("ce", "rs", "brs")}
    for arch in ("solov2_light_R_34", "solov2_R_101"):
        assert names >= {f"{arch}_FPN_{x}_3x" for x in ("focal", "rs", "brs")}
    depths = ("R_50", "R_101", "X_101_64x4d")
    assert names >= {f"retinanet_{x}_FPN_alrp_500s_100e" for x in depths}
    depths = ("R_101", "X_101_64x4d", "X_101_64x4d_DCN")
    assert names >= {f"retinanet_{x}_FPN_alrp_800s_100e" for x in depths}
    assert names >= {f"retinanet_R_50_FPN_{x}_iou_500s_100e" for x in ("ap", "alrp")}
    assert names >= {f"fovea_R_50_FPN_{x}_500s_100e" for x in ("focal", "ap", "alrp")}
    assert names >= {f"faster_rcnn_R_50_FPN_{x}_500s_100e" for x in ("ce", "ce_giou", "alrp")}


def test_slim_detectors_have_both_losses_and_their_baseline():
    names = {p.stem for p in LEAVES if p.parent == CONFIGS / "quick"}
    two_stage = (("faster_rcnn", "ce"), ("mask_rcnn", "ce"))
    for arch, baseline in (*two_stage, *ONE_STAGE_BASELINES, ("solov2", "focal")):
        assert names >= {f"{arch}_R_18_FPN_{x}_300it" for x in ("rs", "brs", baseline)}
    assert names >= {f"yolact_R_18_{x}_300it" for x in ("rs", "brs", "ce")}
    assert names >= {f"{x}_R_50_FPN_rs_3000it" for x in ("faster_rcnn", "mask_rcnn", "atss")}


def test_five_keys_and_at_most_six_statements(leaf, cfg):
    assert set(cfg.keys()) == KEYS
    tree = ast.parse(leaf.read_text())
    assert ast.get_docstring(tree)
    assert len(tree.body) - 1 <= 6


def test_name_equals_content(leaf, cfg, tokens):
    model = build_without_weights(cfg.model)
    is_light = tokens["arch"] == "solov2_light"
    expected = ITERATIONS_LIGHT if is_light else ITERATIONS[leaf.parent.name][tokens["schedule"]]
    assert cfg.train.max_iter == expected
    if leaf.is_relative_to(ROOT / "projects"):
        assert_co_detr(cfg, model, tokens)
        return
    stages = model.backbone.bottom_up.stages
    assert [len(s) for s in stages] == DEPTHS[tokens["depth"]]
    if tokens["arch"] in INSTANCE:
        assert_instance(cfg, model, tokens)
        return
    deformable = [isinstance(s[0], DeformableBottleneckBlock) for s in stages]
    assert deformable == ([False, True, True, True] if tokens["dcn"] else [False] * 4)
    assert type(model.backbone).__name__ == {"CARAFE_FPN": "CarafeFPN"}.get(tokens["neck"], "FPN")
    assert getattr(model, "roi_heads", model).num_classes == CLASSES[leaf.parent.name]
    if tokens["arch"] in ONE_STAGE:
        assert_one_stage(cfg, model, tokens)
    else:
        assert_rcnn(cfg, model, tokens)


def assert_rcnn(cfg, model, tokens):
    rpn, roi = (expected_criterion(tokens, site) for site in ("rpn", "roi"))
    if tokens["variant"] == "giou":
        roi = SoftmaxCriterion(GIoULoss(), box_weight=10.0)
    assert repr(model.proposal_generator.criterion) == repr(rpn)
    box_predictors = predictors(model.roi_heads)
    for head in box_predictors:
        assert repr(head.criterion) == repr(roi)
    assert len(box_predictors) == (3 if tokens["arch"] == "cascade_rcnn" else 1)
    assert model.roi_heads.mask_on == (tokens["arch"] == "mask_rcnn")
    mapper = cfg.dataloader.train.mapper
    assert mapper.get("use_instance_mask", False) == model.roi_heads.mask_on
    if model.roi_heads.mask_on:
        assert repr(model.roi_heads.mask_head.criterion) == repr(
            build_criterion(tokens["loss"], "mask")
        )


def assert_one_stage(cfg, model, tokens):
    assert repr(model.criterion) == repr(expected_criterion(tokens, tokens["arch"]))
    if tokens["arch"] == "retinanet":
        by_iou = tokens["variant"] == "iou" or tokens["schedule"] in ("1x", "300it")
        assigner = MaxIoUAssigner if by_iou else ATSSAssigner
        assert isinstance(model.matcher.assigner, assigner)
    assert len(model.head_in_features) == 5
    groups = model.backbone.bottom_up.res2[0].conv2.groups
    assert groups == (64 if tokens["depth"].startswith("X") else 1)
    images = {"500s_100e": 32, "800s_100e": 16, "1x": 16}
    assert cfg.dataloader.train.total_batch_size == images.get(tokens["schedule"], 4)


def expected_criterion(tokens, site):
    """That of the loss and site: 8 images a GPU at 512 pixels, 4 else; half an epoch at 800."""
    long = tokens["schedule"] in ("500s_100e", "800s_100e")
    criterion = build_criterion(tokens["loss"], site, pools_per_epoch=3665 if long else 7330)
    if tokens["schedule"] == "500s_100e" and tokens["loss"] not in ("ce", "focal"):
        criterion.images_per_pool = 8
    return criterion


def assert_instance(cfg, model, tokens):
    site, loss = INSTANCE[tokens["arch"]], tokens["loss"]
    for criterion, name in ((model.criterion, site), (model.mask_criterion, f"{site}_mask")):
        expected = build_criterion(loss, name)
        if tokens["depth"] == "R_101" and loss != "focal":
            expected.images_per_pool = 4
        assert repr(criterion) == repr(expected)
    assert model.num_classes == 80 and len(model.head_in_features) == 5
    mapper = cfg.dataloader.train.mapper
    assert mapper.use_instance_mask and mapper.instance_mask_format == "bitmask"
    images = {"R_18": 4, "R_34": 32, "R_50": 32, "R_101": 16}
    assert cfg.dataloader.train.total_batch_size == images[tokens["depth"]]
    if site == "yolact":
        assert model.head.has_background == (model.semantic_head is not None) == (loss == "ce")
    else:
        assert model.assigner.first_wins == (loss != "focal")


def assert_co_detr(cfg, model, tokens):
    assert type(model).__name__ == "CoDETR"
    backbone = model.backbone
    if tokens["depth"] in SWIN:
        blocks = [len(layer.blocks) for layer in backbone.layers]
        window = backbone.layers[0].window_size
        assert (blocks, backbone.embed_dim, window) == SWIN[tokens["depth"]]
    else:
        assert [len(s) for s in backbone.stages] == DEPTHS[tokens["depth"]]
    losses = model.query_losses
    sites = [losses.decoder, losses.encoder, losses.custom, model.dense_head.criterion]
    sites += [model.proposal_generator.criterion, model.roi_heads.box_predictor.criterion]
    of_queries = focal = "SigmoidFocalLoss(alpha=0.25, gamma=2.0)"
    if tokens["arch"].startswith("co_dino"):
        sites.insert(0, losses.denoising)
        of_queries = "QualityFocalLoss(beta=2.0)"
    number = len(sites) - 3
    named = {
        "rs": ["(cls_loss): RankSortLoss(delta=0.5)"] * len(sites),
        "brs": ["(cls_loss): BucketedRankSortLoss(delta=0.5)"] * len(sites),
        "focal": [*[of_queries] * number, focal, "BinaryCrossEntropyLoss", "SoftmaxCriterion"],
    }
    for criterion, name in zip(sites, named[tokens["loss"]], strict=True):
        assert name in repr(criterion)
    assert model.query_head.num_classes == model.roi_heads.num_classes == 80
    assert model.dense_head.head.num_classes == model.dense_head.matcher.num_classes == 80
    assert cfg.dataloader.train.total_batch_size == (4 if tokens["schedule"] == "300it" else 16)


def predictors(heads):
    several = isinstance(heads.box_predictor, torch.nn.ModuleList)
    return list(heads.box_predictor) if several else [heads.box_predictor]


def test_yaml_round_trip(cfg, tmp_path):
    file = tmp_path / "config.yaml"
    LazyConfig.save(cfg, str(file))
    again = LazyConfig.load(str(file))
    check_values(again)
    second = tmp_path / "again.yaml"
    LazyConfig.save(again, str(second))
    assert second.read_text() == file.read_text()
    assert set(again.keys()) == KEYS
    build_without_weights(again.model)


def test_sampling_goes_with_the_loss(cfg, tokens):
    if tokens["arch"] in (*ONE_STAGE, *INSTANCE):
        return  # they never sample
    sampled = tokens["loss"] in ("ce", "focal")
    for part in (cfg.model.proposal_generator, cfg.model.roi_heads):
        assert (part.batch_size_per_image is not None) == sampled


def test_learning_rate_schedule_and_optimizer(leaf, cfg):
    schedule = instantiate(cfg.lr_multiplier)
    without_warm_up = leaf.parent == ROOT / "projects/co_detr/configs"
    start = 0.1 if leaf.name.startswith("yolact") and leaf.parent.name == "coco" else 0.01
    assert schedule(0.0) == 1 if without_warm_up else 0 < schedule(0.0) <= start
    assert max(schedule(i / 100) for i in range(100)) <= 1
    assert schedule(0.999) <= 0.1  # on Cityscapes the rate has one step, elsewhere two
    # Parts with learning rates of their own.
    parts = ("backbone", "sampling_offsets", "head")
    cfg.optimizer.params.model = torch.nn.ModuleDict({x: torch.nn.Linear(1, 1) for x in parts})
    assert instantiate(cfg.optimizer).param_groups


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("model.roi_heads.num_clases=2", "model.roi_heads.num_classes"),
        ("model.proposal_generator.nms_tresh=0.5", "model.proposal_generator.nms_thresh"),
        ("model.proposal_generator.criterion.image_per_pool=2", "criterion.images_per_pool"),
    ],
)
def test_misspelt_keys_below_our_heads_are_refused(override, meant):
    """Our heads take `**keywords` for their base classes: these are known too."""
    with pytest.raises(InputError, match=f"Did you mean .*{re.escape(meant)}"):
        load_config(str(CONFIGS / "coco/faster_rcnn_R_50_FPN_brs_1x.py"), [override])


def test_arguments_of_base_classes_are_keys():
    overrides = ["model.proposal_generator.anchor_boundary_thresh=0", "optimizer.nesterov=True"]
    cfg, _ = load_config(str(CONFIGS / "coco/faster_rcnn_R_50_FPN_brs_1x.py"), overrides)
    assert instantiate(cfg.model).proposal_generator.anchor_boundary_thresh == 0


def test_published_recipe():
    cfg = LazyConfig.load(str(CONFIGS / "coco/faster_rcnn_R_50_FPN_brs_1x.py"))
    assert (cfg.optimizer.lr, cfg.dataloader.train.total_batch_size) == (0.012, 16)
    assert cfg.train.init_checkpoint == "torchvision://resnet50"
    schedule = instantiate(cfg.lr_multiplier)
    iterations = [0, 500, 58639, 58641, 80631, 87959]
    rates = [round(schedule(i / 87960), 4) for i in iterations]
    assert rates == [0.001, 1.0, 1.0, 0.1, 0.01, 0.01]
    assert cfg.model.roi_heads.box_predictor.test_score_thresh == 0.40
    assert cfg.dataloader.train.dataset.names == "coco_2017_train"
    model = instantiate(cfg.model)
    assert not model.backbone.bottom_up.stem.conv1.weight.requires_grad
    norm = model.backbone.bottom_up.res3[0].conv1.norm
    assert norm.weight.requires_grad
    before = norm.running_mean.clone()
    norm.train()(torch.randn(1, norm.num_features, 4, 4))
    assert torch.equal(norm.running_mean, before)


@pytest.mark.parametrize(
    ("recipe", "steps", "scales", "weights"),
    [
        ("cascade_rcnn_R_50_FPN_{}_1x", (58640, 80630), (800, 800), "resnet50"),
        ("cascade_rcnn_R_50_FPN_{}_3x", (197910, 241890), (480, 960), "resnet50"),
        ("mask_rcnn_R_50_FPN_{}_1x", (58640, 80630), (800, 800), "resnet50"),
        ("mask_rcnn_R_50_FPN_{}_27e", (146600, 183250), (640, 800), "resnet50"),
        ("mask_rcnn_R_101_FPN_{}_3x", (197910, 241890), (640, 800), "resnet101"),
    ],
)
def test_recipes_of_cascade_and_mask_rcnn(recipe, steps, scales, weights):
    for loss, lr, threshold in (("brs", 0.012, 0.40), ("rs", 0.012, 0.40), ("ce", 0.02, 0.05)):
        cfg = LazyConfig.load(str(CONFIGS / "coco" / f"{recipe.format(loss)}.py"))
        assert (cfg.optimizer.lr, cfg.dataloader.train.total_batch_size) == (lr, 16)
        schedule, total = instantiate(cfg.lr_multiplier), cfg.train.max_iter
        for before, step in zip((1.0, 0.1), steps, strict=True):
            assert schedule((step - 1) / total) == pytest.approx(before)
            assert schedule((step + 1) / total) == pytest.approx(before / 10)
        sides = cfg.dataloader.train.mapper.augmentations[0].short_edge_length
        assert (min(sides), max(sides)) == scales
        assert cfg.train.init_checkpoint == f"torchvision://{weights}"
        heads = cfg.model.roi_heads
        for predictor in heads.get("box_predictors", [heads.get("box_predictor")]):
            assert predictor.test_score_thresh == threshold


@pytest.mark.parametrize("loss", ["ce", "rs", "brs"])
def test_published_recipe_of_lvis(loss):
    cfg = LazyConfig.load(str(CONFIGS / f"lvis_v1/mask_rcnn_R_50_FPN_{loss}_1x.py"))
    predictor = cfg.model.roi_heads.box_predictor
    assert predictor.test_topk_per_image == cfg.dataloader.evaluator.max_dets_per_image == 300
    assert predictor.test_score_thresh == (1e-4 if loss == "ce" else 0.60)
    assert cfg.train.init_checkpoint == "torchvision://resnet50"
    resize = instantiate(cfg.dataloader.train.mapper.augmentations[0])
    assert resize.short_edge_length == (640, 672, 704, 736, 768, 800) and not resize.is_range
    schedule = instantiate(cfg.lr_multiplier)
    rates = [round(schedule(i / 92088), 4) for i in (0, 500, 61391, 61393, 84413, 84415)]
    assert rates == [0.001, 1.0, 1.0, 0.1, 0.1, 0.01]


@pytest.mark.parametrize("loss", ["ce", "rs", "brs"])
def test_published_recipe_of_cityscapes(loss):
    cfg = LazyConfig.load(str(CONFIGS / f"cityscapes/mask_rcnn_R_50_FPN_{loss}.py"))
    assert cfg.model.roi_heads.box_predictor.test_score_thresh == (0.05 if loss == "ce" else 0.40)
    assert "coco" in cfg.train.init_checkpoint
    resize = instantiate(cfg.dataloader.train.mapper.augmentations[0])
    assert (resize.short_edge_length, resize.max_size) == ((800, 1024), 2048) and resize.is_range
    schedule = instantiate(cfg.lr_multiplier)
    rates = [round(schedule(i / 17796), 4) for i in (0, 500, 11863, 11865, 17795)]
    assert rates == [0.001, 1.0, 1.0, 0.1, 0.1]
