"""Every leaf config: loads, is what its name says, instantiates, survives a round trip."""

import ast
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from brloss_d2.criteria import (
    ONE_STAGE_ARCHITECTURES,
    one_stage_criterion,
    roi_criterion,
    rpn_criterion,
)
from brloss_d2.engine import load_config
from brloss_d2.errors import InputError
from brloss_d2.modeling import DeformableBottleneckBlock, FixedStatsBatchNorm2d

CONFIGS = Path(__file__).parents[2] / "configs"
LEAVES = sorted(p for p in CONFIGS.rglob("*.py") if "common" not in p.parts)
KEYS = {"model", "optimizer", "lr_multiplier", "dataloader", "train"}
NAME = re.compile(
    r"(?P<arch>faster_rcnn|atss|paa|retinanet|fovea)_(?P<depth>R_\d+|X_101_64x4d)(?P<dcn>_DCN)?_(?P<neck>FPN)_(?P<loss>[a-z]+)_(?P<schedule>\w+)"
)
DEPTHS = {"R_18": [2, 2, 2, 2], "R_50": [3, 4, 6, 3], "R_101": [3, 4, 23, 3]}
DEPTHS["X_101_64x4d"] = DEPTHS["R_101"]
ITERATIONS = {"1x": 87960, "3x": 263880, "500s_100e": 366500, "300it": 300}


@pytest.fixture(params=LEAVES, ids=lambda p: str(p.relative_to(CONFIGS)))
def leaf(request):
    return request.param


@pytest.fixture
def tokens(leaf):
    match = NAME.fullmatch(leaf.stem)
    assert match, f"{leaf.name} is not <arch>_<backbone>_<neck>_<loss>_<schedule>.py"
    return match.groupdict()


@pytest.fixture
def cfg(leaf):
    return LazyConfig.load(str(leaf))


def test_there_are_leaves():
    names = {p.stem for p in LEAVES if p.parent.name == "coco"}
    assert names >= {f"faster_rcnn_R_50_FPN_{x}_1x" for x in ("ce", "rs", "brs", "bap", "alrp")}
    for arch in ("atss", "paa"):
        losses = ("focal", "ap", "bap", "rs", "brs")
        assert names >= {f"{arch}_R_50_FPN_{x}_1x" for x in losses}
    losses = ("focal", "ap", "alrp", "rs", "brs")
    assert names >= {f"retinanet_R_50_FPN_{x}_1x" for x in losses}
    depths = ("R_50", "R_101", "X_101_64x4d")
    assert names >= {f"retinanet_{x}_FPN_alrp_500s_100e" for x in depths}
    assert names >= {f"fovea_R_50_FPN_{x}_500s_100e" for x in ("focal", "ap", "alrp")}


def test_five_keys_and_at_most_six_statements(leaf, cfg):
    assert set(cfg.keys()) == KEYS
    tree = ast.parse(leaf.read_text())
    assert ast.get_docstring(tree)
    assert len(tree.body) - 1 <= 6


def test_name_equals_content(cfg, tokens):
    model = instantiate(cfg.model)
    stages = model.backbone.bottom_up.stages
    assert [len(s) for s in stages] == DEPTHS[tokens["depth"]]
    deformable = [isinstance(s[0], DeformableBottleneckBlock) for s in stages]
    assert deformable == ([False, True, True, True] if tokens["dcn"] else [False] * 4)
    assert type(model.backbone).__name__ == tokens["neck"]
    assert cfg.train.max_iter == ITERATIONS[tokens["schedule"]]
    if tokens["arch"] in ONE_STAGE_ARCHITECTURES:
        assert_one_stage(cfg, model, tokens)
        return
    for head, make in (
        (model.proposal_generator, rpn_criterion),
        (model.roi_heads.box_predictor, roi_criterion),
    ):
        # The YAML presets and the configs are the same criteria.
        assert repr(head.criterion) == repr(make(tokens["loss"], epoch_steps=7330))


def assert_one_stage(cfg, model, tokens):
    long = tokens["schedule"] == "500s_100e"  # 32 images an iteration, 8 a GPU
    expected = one_stage_criterion(
        tokens["arch"], tokens["loss"], epoch_steps=3665 if long else 7330
    )
    if long and tokens["loss"] != "focal":
        expected.images_per_pool = 8
    # The YAML presets and the configs are the same criteria.
    assert repr(model.criterion) == repr(expected)
    groups = model.backbone.bottom_up.res2[0].conv2.groups
    assert groups == (64 if tokens["depth"].startswith("X") else 1)
    assert cfg.dataloader.train.total_batch_size == {"500s_100e": 32, "1x": 16}.get(
        tokens["schedule"], 4
    )


def test_yaml_round_trip(cfg, tmp_path):
    file = tmp_path / "config.yaml"
    LazyConfig.save(cfg, str(file))
    again = LazyConfig.load(str(file))
    second = tmp_path / "again.yaml"
    LazyConfig.save(again, str(second))
    assert second.read_text() == file.read_text()
    assert set(again.keys()) == KEYS
    instantiate(again.model)


def test_sampling_goes_with_the_loss(cfg, tokens):
    if tokens["arch"] in ONE_STAGE_ARCHITECTURES:
        return  # they never sample
    sampled = tokens["loss"] == "ce"
    for part in (cfg.model.proposal_generator, cfg.model.roi_heads):
        assert (part.batch_size_per_image is not None) == sampled


def test_learning_rate_schedule_and_optimizer(cfg):
    schedule = instantiate(cfg.lr_multiplier)
    assert 0 < schedule(0.0) <= 0.01
    assert max(schedule(i / 100) for i in range(100)) <= 1
    assert schedule(0.999) < 0.02
    model = torch.nn.Linear(1, 1)
    cfg.optimizer.params.model = model
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


def test_published_recipe_of_the_deformable_backbone():
    cfg = LazyConfig.load(str(CONFIGS / "coco/faster_rcnn_R_101_DCN_FPN_brs_3x.py"))
    schedule = instantiate(cfg.lr_multiplier)
    rates = [round(schedule(i / 263880), 4) for i in (0, 500, 197909, 197911, 241889, 241891)]
    assert rates == [0.001, 1.0, 1.0, 0.1, 0.1, 0.01]
    assert (cfg.optimizer.lr, cfg.train.init_checkpoint) == (0.012, "torchvision://resnet101")
    resize = cfg.dataloader.train.mapper.augmentations[0]
    assert list(resize.short_edge_length) == [480, 560, 640, 720, 800, 880, 960]
    assert (resize.sample_style, resize.max_size) == ("choice", 1333)
    assert cfg.dataloader.test.mapper.augmentations[0].short_edge_length == 800
    network = instantiate(cfg.model.backbone.bottom_up)
    assert network.res3[0].conv2_offset.weight.shape == (4 * 27, 128, 3, 3)
    assert network.res3[0].conv2.stride == (2, 2)
    assert not network.res2[0].conv1.weight.requires_grad
    assert isinstance(network.res5[2].conv2.norm, FixedStatsBatchNorm2d)


@pytest.mark.parametrize(
    ("name", "milestones", "iterations"),
    [
        ("1x", (58640, 80630), 87960),
        ("27e", (146600, 183250), 197910),
        ("3x", (197910, 241890), 263880),
        ("lvis_1x", (61392, 84414), 92088),
        ("cityscapes", (11864,), 17796),
    ],
)
def test_schedules(name, milestones, iterations):
    nodes = LazyConfig.load(str(CONFIGS / "common/schedules.py"))
    schedule = instantiate(nodes[f"lr_multiplier_{name}"])
    assert (schedule(0.0), schedule(500 / iterations)) == (0.001, 1.0)
    for i, milestone in enumerate(milestones):
        before, after = (schedule((milestone + shift) / iterations) for shift in (-1, 1))
        assert (before, after) == pytest.approx((0.1**i, 0.1 ** (i + 1)))
    assert schedule(1 - 1e-9) == pytest.approx(0.1 ** len(milestones))


@pytest.mark.parametrize(
    ("leaf", "lr", "batch", "steps"),
    [
        *(
            (f"{a}_R_50_FPN_{n}_1x", 0.008, 16, (58640, 80630))
            for a in ("atss", "paa")
            for n in ("ap", "bap", "rs", "brs")
        ),
        ("atss_R_50_FPN_focal_1x", 0.01, 16, (58640, 80630)),
        ("paa_R_50_FPN_focal_1x", 0.01, 16, (58640, 80630)),
        *(
            (f"retinanet_{x}_FPN_alrp_500s_100e", 0.008, 32, (274875, 348175))
            for x in ("R_50", "R_101", "X_101_64x4d")
        ),
        ("fovea_R_50_FPN_focal_500s_100e", 0.02, 32, (274875, 348175)),
        ("fovea_R_50_FPN_ap_500s_100e", 0.002, 32, (274875, 348175)),
        ("fovea_R_50_FPN_alrp_500s_100e", 0.008, 32, (274875, 348175)),
    ],
)
def test_published_recipes_of_one_stage_detectors(leaf, lr, batch, steps):
    cfg = LazyConfig.load(str(CONFIGS / f"coco/{leaf}.py"))
    assert (cfg.optimizer.lr, cfg.dataloader.train.total_batch_size) == (lr, batch)
    schedule, total = instantiate(cfg.lr_multiplier), cfg.train.max_iter
    assert schedule(0) == pytest.approx(0.001)
    for before, step in zip((1.0, 0.1), steps, strict=True):
        assert schedule((step - 1) / total) == pytest.approx(before)
        assert schedule((step + 1) / total) == pytest.approx(before / 10)
    resize = cfg.dataloader.test.mapper.augmentations[0]
    expected = (800, 1333) if batch == 16 else (500, 833)
    assert (resize.short_edge_length, resize.max_size) == expected
    train = cfg.dataloader.train.mapper.augmentations
    if batch == 32:
        assert [str(a._target_).split(".")[-1].strip("'>") for a in train] == [
            *("PhotometricDistortion", "Expand", "MinIoUCrop", "Resize", "RandomFlip")
        ]
        assert list(train[3].shape) == [512, 512]


def test_parameters_of_one_stage_heads_and_pyramids():
    """As counted for the published models."""
    expected = {
        "atss_R_50_FPN_brs_1x": (5_303_553, 3_868_672),
        "atss_R_50_FPN_focal_1x": (4_918_618, 3_868_672),
        "paa_R_50_FPN_rs_1x": (5_303_553, 3_868_672),
        "retinanet_R_50_FPN_focal_1x": (6_463_220, 7_997_440),
        "retinanet_R_50_FPN_alrp_500s_100e": (5_107_880, 7_997_440),
        "fovea_R_50_FPN_alrp_500s_100e": (4_914_260, 7_997_440),
    }
    for leaf, counts in expected.items():
        model = instantiate(LazyConfig.load(str(CONFIGS / f"coco/{leaf}.py")).model)
        head = sum(p.numel() for p in model.head.parameters())
        backbone = sum(p.numel() for p in model.backbone.parameters())
        pyramid = backbone - sum(p.numel() for p in model.backbone.bottom_up.parameters())
        assert (head, pyramid) == counts, leaf
