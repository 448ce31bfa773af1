"""Every leaf config: loads, is what its name says, instantiates, survives a round trip."""

import ast
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from brloss_d2.criteria import roi_criterion, rpn_criterion
from brloss_d2.engine import load_config
from brloss_d2.errors import InputError
from brloss_d2.modeling import DeformableBottleneckBlock, FixedStatsBatchNorm2d

CONFIGS = Path(__file__).parents[2] / "configs"
LEAVES = sorted(p for p in CONFIGS.rglob("*.py") if "common" not in p.parts)
KEYS = {"model", "optimizer", "lr_multiplier", "dataloader", "train"}
NAME = re.compile(
    r"(?P<arch>faster_rcnn)_(?P<depth>R_\d+)(?P<dcn>_DCN)?_(?P<neck>FPN)_(?P<loss>[a-z]+)_(?P<schedule>\w+)"
)
DEPTHS = {"R_18": [2, 2, 2, 2], "R_50": [3, 4, 6, 3], "R_101": [3, 4, 23, 3]}
ITERATIONS = {"1x": 87960, "3x": 263880, "300it": 300}


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
    for head, make in (
        (model.proposal_generator, rpn_criterion),
        (model.roi_heads.box_predictor, roi_criterion),
    ):
        # The YAML presets and the configs are the same criteria.
        assert repr(head.criterion) == repr(make(tokens["loss"], epoch_steps=7330))


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
