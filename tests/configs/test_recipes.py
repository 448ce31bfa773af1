"""Recipes have the numbers of the published ones, and say them in their docstrings."""

import ast
import re
from pathlib import Path

import pytest
from detectron2.config import LazyConfig, instantiate
from torch import nn

from brloss_d2.model_zoo import config_file, get_config, list_configs
from brloss_d2.model_zoo.entries import ConfigEntry, published
from brloss_d2.modeling import FixedStatsBatchNorm2d
from tests.helpers.configs import build_without_weights

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("name", "milestones", "iterations"),
    [
        ("coco/atss_R_50_FPN_brs_1x", (58640, 80630), 87960),
        ("coco/mask_rcnn_R_50_FPN_brs_27e", (146600, 183250), 197910),
        ("coco/mask_rcnn_R_101_FPN_brs_3x", (197910, 241890), 263880),
        ("lvis_v1/mask_rcnn_R_50_FPN_brs_1x", (61392, 84414), 92088),
        ("cityscapes/mask_rcnn_R_50_FPN_brs", (11864,), 17796),
    ],
)
def test_schedules(name, milestones, iterations):
    cfg = get_config(name)
    assert cfg.train.max_iter == iterations
    schedule = instantiate(cfg.lr_multiplier)
    assert (schedule(0.0), schedule(500 / iterations)) == (0.001, 1.0)
    for i, milestone in enumerate(milestones):
        before, after = (schedule((milestone + shift) / iterations) for shift in (-1, 1))
        assert (before, after) == pytest.approx((0.1**i, 0.1 ** (i + 1)))
    assert schedule(1 - 1e-9) == pytest.approx(0.1 ** len(milestones))


@pytest.mark.parametrize(
    ("name", "lr", "decay", "start", "clip", "drops"),
    [
        ("yolact_R_50_ce_55e", 0.004, 5e-4, 0.1, 35, (20, 42, 49, 52)),
        ("yolact_R_50_rs_55e", 0.006, 5e-4, 0.1, 0, None),
        ("solov2_light_R_34_FPN_rs_3x", 0.012, 1e-4, 0.01, 35, (27, 33)),
        ("solov2_light_R_34_FPN_focal_3x", 0.02, 1e-4, 0.01, 35, (27, 33)),
        ("solov2_R_101_FPN_rs_3x", 0.006, 1e-4, 0.01, 35, (27, 33)),
        ("solov2_R_101_FPN_focal_3x", 0.01, 1e-4, 0.01, 35, (27, 33)),
    ],
)
def test_recipes_of_yolact_and_solov2(name, lr, decay, start, clip, drops):
    cfg = get_config(f"coco/{name}")
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (lr, decay)
    assert cfg.train.clip_grad_norm == clip
    norm, conv = nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)
    cfg.optimizer.params.model = nn.Sequential(conv, norm)
    assert {x["weight_decay"] for x in instantiate(cfg.optimizer).param_groups} == {decay}
    total, epoch = cfg.train.max_iter, 117_280 // cfg.dataloader.train.total_batch_size
    schedule = instantiate(cfg.lr_multiplier)
    assert schedule(0.0) == pytest.approx(start) and schedule(500 / total) == 1
    if drops is None:
        # The learning rates that are published, by epoch.
        rates = {1: 0.00599511, 10: 0.00552376, 27: 0.00308567, 40: 0.00103542, 54: 4.89e-6}
        for number, rate in rates.items():
            assert lr * schedule(number * epoch / total) == pytest.approx(rate, rel=0, abs=5e-9)
        return
    for i, drop in enumerate(drops):
        before, after = (schedule((drop * epoch + shift) / total) for shift in (-1, 1))
        assert (before, after) == pytest.approx((0.1**i, 0.1 ** (i + 1)))


def test_images_of_yolact_and_solov2():
    mapper = get_config("coco/yolact_R_50_rs_55e").dataloader.train.mapper
    assert mapper.min_side == 4
    _, expand, _, resize, _ = mapper.augmentations
    assert list(expand.fill) == [123.68, 116.78, 103.94] and list(resize.shape) == [550, 550]
    for name, sides, longest, test in (
        ("solov2_light_R_34_FPN_rs_3x", range(352, 513, 32), 768, (448, 768)),
        ("solov2_R_101_FPN_rs_3x", range(640, 801, 32), 1333, (800, 1333)),
    ):
        loader = get_config(f"coco/{name}").dataloader
        resize, own = loader.train.mapper.augmentations[0], loader.test.mapper.augmentations[0]
        assert (list(resize.short_edge_length), resize.max_size) == (list(sides), longest)
        assert (own.short_edge_length, own.max_size) == test


def test_deformable_resnet_101():
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
    ("leaf", "backbone", "deformable"),
    [
        ("faster_rcnn_R_50_CARAFE_FPN_rs_1x", "resnet50", 0),
        ("faster_rcnn_R_101_DCN_CARAFE_FPN_rs_3x", "resnet101", 7_717_032),
        ("mask_rcnn_R_50_CARAFE_FPN_rs_1x", "resnet50", 0),
        ("mask_rcnn_R_101_CARAFE_FPN_rs_3x", "resnet101", 0),
        ("mask_rcnn_R_101_DCN_CARAFE_FPN_rs_3x", "resnet101", 7_717_032),
        ("mask_rcnn_X_101_64x4d_DCN_CARAFE_FPN_rs_3x", "resnext101_64x4d", 30_858_408),
    ],
)
def test_recipes_with_carafe(leaf, backbone, deformable):
    """They differ from those without in the pyramid and, of 36 epochs, in the image sizes."""
    cfg = get_config(f"coco/{leaf}")
    sides = list(cfg.dataloader.train.mapper.augmentations[0].short_edge_length)
    is_long = leaf.endswith("3x")
    assert sides == ([480, 560, 640, 720, 800, 880, 960] if is_long else [800])
    assert cfg.train.init_checkpoint == f"torchvision://{backbone}"
    plain_name = leaf.replace("_CARAFE", "").replace("X_101_64x4d", "R_101")
    if leaf.startswith("mask"):
        plain_name = plain_name.replace("_DCN", "")
    plain = get_config(f"coco/{plain_name}")
    for key in ("optimizer", "lr_multiplier"):
        assert cfg[key] == plain[key]
    for key in ("proposal_generator", "roi_heads", "pixel_mean", "pixel_std", "input_format"):
        assert cfg.model[key] == plain.model[key]
    model = build_without_weights(cfg.model)
    neck = [p for name, p in model.backbone.named_parameters() if name.startswith("fpn_")]
    offsets = [p for name, p in model.named_parameters() if ".conv2_offset." in name]
    assert sum(p.numel() for p in neck) == 8_949_904
    assert sum(p.numel() for p in offsets) == deformable


def leaves_of_recipes() -> dict[Path, list[ConfigEntry]]:
    """The file of each recipe, where `train` comes from, and the configs made from it."""
    found: dict[Path, list[ConfigEntry]] = {}
    for entry in list_configs():
        file = Path(config_file(entry.name))
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ImportFrom) and "train" in {x.name for x in node.names}:
                recipe = file.parents[node.level - 1] / f"{node.module.replace('.', '/')}.py"
                found.setdefault(recipe, []).append(entry)
    return found


RECIPES = leaves_of_recipes()


def test_every_config_has_a_recipe():
    assert sum(len(entries) for entries in RECIPES.values()) == len(list_configs())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_how_it_trains_and_what_was_published(recipe):
    text = re.sub(r"\s+", " ", ast.get_docstring(ast.parse(recipe.read_text())))
    images, iterations, lr, others = re.search(
        r"(\d+) images per iteration, ([\d,]+) iterations, "
        r"learning rate ([\d.]+)(?: \((.+?)\))?[,;.] ",
        text,
    ).groups()
    lrs = dict(x.split(": ") for x in others.split(", ")) if others else {}
    expected: dict[str, set[str]] = {"box": set(), "mask": set()}
    several, varied = (
        len({getattr(entry, key) for entry in RECIPES[recipe]}) > 1
        for key in ("backbone", "variant")
    )
    for entry in RECIPES[recipe]:
        cfg = get_config(entry.name)
        assert cfg.dataloader.train.total_batch_size == int(images)
        assert cfg.train.max_iter == int(iterations.replace(",", ""))
        assert cfg.optimizer.lr == float(lrs.get(entry.loss, lr)), entry.name
        loss = f"{entry.loss}_{entry.variant}" if varied and entry.variant != "-" else entry.loss
        label = f"{loss} {entry.backbone}" if several else loss
        row = published()["results"].get(entry.name, {})
        for kind in expected:
            if f"{kind}_ap" in row:
                expected[kind].add(f"{label} {row[f'{kind}_ap']}")
    assert lrs.keys() <= {entry.loss for entry in RECIPES[recipe]}
    for kind, numbers in expected.items():
        told = re.search(rf"{kind} AP: (.+?)[.;](?: |$)", text)
        assert set(told[1].split(", ") if told else ()) == numbers
    (command,) = re.findall(r"--config-file (\S+\.py)", text)
    leaves = {Path(config_file(entry.name)) for entry in RECIPES[recipe]}
    assert Path(__file__).parents[2] / command in leaves
