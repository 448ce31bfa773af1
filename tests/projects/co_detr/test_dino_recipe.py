"""Sizes, loss weights, optimizer and schedules of Co-DINO are the published ones."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig
from torch import nn

from brloss_d2.losses import RankSortLoss
from brloss_d2.utils.config_nodes import walk_nodes
from tests.helpers.configs import build_without_weights

CONFIGS = Path(__file__).parents[3] / "projects/co_detr/configs"
EPOCH = 7393
# Leaf: epochs, epoch of the drop, drop path, canvas.
FOCAL = {
    "R_50_focal_1x": (12, 11, None, None),
    "R_50_focal_lsj_1x": (12, 11, None, 1024),
    "9encoder_R_50_focal_lsj_1x": (12, 11, None, 1024),
    "R_50_focal_lsj_3x": (36, 30, None, 1024),
    "9encoder_R_50_focal_lsj_3x": (36, 30, None, 1024),
    "swin_l_focal_1x": (12, 11, 0.3, None),
    "swin_l_focal_2x": (24, 20, 0.5, None),
    "swin_l_focal_3x": (36, 30, 0.6, None),
    "swin_l_focal_lsj_1x": (12, 11, 0.3, 1280),
    "swin_l_focal_lsj_2x": (24, 20, 0.5, 1280),
    "swin_l_focal_lsj_3x": (36, 30, 0.5, 1280),
    "swin_l_focal_o365_16e": (16, 8, 0.3, None),
}
RANKED = [
    *("R_50_rs_1x", "R_50_brs_1x", "R_50_brs_unbalanced_1x", "R_50_rs_lsj_3x", "R_50_brs_lsj_3x"),
    *("swin_l_rs_1x", "swin_l_brs_1x"),
]


def config(leaf: str) -> DictConfig:
    return LazyConfig.load(str(CONFIGS / f"co_dino_5scale_{leaf}.py"))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_there_are_leaves_with_rows_in_the_readme() -> None:
    expected = {f"co_dino_5scale_{leaf}" for leaf in (*FOCAL, *RANKED)}
    assert {path.stem for path in CONFIGS.glob("co_dino*.py")} == expected
    quick = {path.stem for path in CONFIGS.glob("quick/co_dino*.py")}
    assert quick == {f"co_dino_R_18_{loss}_300it" for loss in ("focal", "rs", "brs")}
    text = (CONFIGS.parent / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `co_detr/(co_dino\w+)` \|", text, re.MULTILINE)) == expected


@pytest.mark.parametrize(
    ("leaf", "numbers", "inference", "heads"),
    [
        ("R_50_focal_1x", 65_150_885, 47_991_180, (601_645, 14_306_705, 1_376_603)),
        ("R_50_brs_1x", 65_147_555, 47_991_180, (601_645, 14_305_680, 1_374_298)),
        ("9encoder_R_50_focal_lsj_1x", 69_071_429, 51_911_724, (601_645, 14_306_705, 1_376_603)),
        ("swin_l_focal_1x", 235_471_769, 218_312_064, (601_645, 14_306_705, 1_376_603)),
    ],
)
def test_parameters(leaf: str, numbers: int, inference: int, heads: tuple[int, ...]) -> None:
    model = build_without_weights(config(leaf).model)
    head = model.query_head
    assert count(model) == numbers
    training = (head.custom, head.downsample, head.denoising)
    parts = (model.backbone, model.neck, head)
    assert sum(map(count, parts)) - sum(map(count, training)) == inference
    aux = (model.proposal_generator, model.roi_heads, model.dense_head)
    assert tuple(map(count, aux)) == heads


@pytest.mark.parametrize("leaf", FOCAL)
def test_schedule_and_augmentation(leaf: str) -> None:
    cfg, (epochs, drop, drop_path, canvas) = config(leaf), FOCAL[leaf]
    schedule, total = instantiate(cfg.lr_multiplier), cfg.train.max_iter
    assert (total, cfg.train.eval_period, schedule(0)) == (epochs * EPOCH, EPOCH, 1)
    assert schedule((drop * EPOCH - 1) / total) == 1
    assert schedule(drop * EPOCH / total) == pytest.approx(0.1)
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (
        1e-4 if "o365" in leaf else 2e-4,
        1e-4,
    )
    assert cfg.optimizer.params.lr_factors == {"backbone": 0.1}
    assert cfg.train.clip_grad_norm == 0.1
    assert cfg.model.backbone.get("drop_path_rate") == drop_path
    assert cfg.model.canvas_size == canvas
    first = cfg.dataloader.train.mapper.augmentations[0]
    if canvas is None:
        assert first._target_.__name__ == "RandomFlip"
    else:
        assert (first.min_scale, first.max_scale, first.target_height) == (0.1, 2.0, canvas)
        assert cfg.dataloader.test.mapper.augmentations[0].max_size == canvas


def test_fine_tuning_after_objects365_sees_larger_images() -> None:
    cfg = config("swin_l_focal_o365_16e")
    policies = cfg.dataloader.train.mapper.augmentations[1].policies
    for resize in (policies[0][-1], policies[1][-1], cfg.dataloader.test.mapper.augmentations[0]):
        assert resize.max_size == 2048
    assert policies[1][-1].short_edge_length == list(range(480, 1537, 32))
    denoising = cfg.model.query_head.denoising
    assert (denoising.num_queries, denoising.box_noise, denoising.label_noise) == (500, 0.4, 0.25)


def test_lower_rates_are_those_of_the_unfrozen_backbone() -> None:
    cfg = config("R_50_brs_1x")
    model = cfg.optimizer.params.model = build_without_weights(cfg.model)
    groups = instantiate(cfg.optimizer).param_groups
    low = {id(p) for group in groups if group["lr"] < 1e-4 for p in group["params"]}
    assert low == {id(p) for p in model.backbone.parameters() if p.requires_grad}
    assert (len(low), sum(len(group["params"]) for group in groups)) == (42, 396)


def test_suppression_and_denoising() -> None:
    model = config("R_50_focal_1x").model
    assert (model.suppression.iou_threshold, model.suppression.min_score) == (0.8, 1e-3)
    assert (model.query_head.num_queries, model.max_detections) == (900, 300)
    denoising = model.query_head.denoising
    assert (denoising.num_queries, denoising.label_noise, denoising.box_noise) == (100, 0.25, 1.0)


@pytest.mark.parametrize(
    ("leaf", "cls_cost", "of_queries", "of_heads"),
    [
        ("R_50_focal_1x", 2, (1, 5, 2), [12, 12, 12]),
        ("R_50_brs_1x", 4, (2, None, None), [1, 5, 5]),
        ("R_50_brs_unbalanced_1x", 4, (1, 5, 2), [pytest.approx(2.4), 12, 12]),
    ],
)
def test_weights_of_the_losses(leaf: str, cls_cost: float, of_queries, of_heads) -> None:
    """Class, L1 and GIoU of queries; RPN, R-CNN and dense head. None balances itself."""
    model = config(leaf).model
    losses, matcher = model.query_losses, model.query_losses.matcher
    assert (matcher.cls_weight, matcher.l1_weight, matcher.giou_weight) == (cls_cost, 5, 2)
    heads = (model.proposal_generator, model.roi_heads.box_predictor, model.dense_head)
    assert [head.loss_weight for head in heads] == of_heads
    for site in ("decoder", "encoder", "custom", "denoising"):
        criterion = losses[site]
        boxes = criterion.get("box_weights") or criterion.get("box_weight") or {}
        found = [losses.weight * boxes[x] if x in boxes else None for x in ("loss_l1", "loss_giou")]
        assert (losses.weight, *found) == of_queries


@pytest.mark.parametrize("leaf", ["R_50_{}_1x", "R_50_{}_lsj_3x", "swin_l_{}_1x"])
def test_rs_differs_from_brs_in_the_loss_alone(leaf: str) -> None:
    cfg, expected = config(leaf.format("rs")), config(leaf.format("brs"))
    changed = 0
    for node in walk_nodes(expected.model):
        if "cls_loss" in node:
            node.cls_loss._target_, changed = RankSortLoss, changed + 1
    assert changed == 7
    assert cfg == expected


def test_anchors_and_regions() -> None:
    model = config("R_50_brs_1x").model
    maps = [torch.zeros(1, 1, 2, 2)] * 6
    anchors = [a.tensor for a in instantiate(model.proposal_generator.anchor_generator)(maps)]
    sides = torch.stack([a[3:6, 2] - a[3:6, 0] for a in anchors])
    assert sides[0, 0].item() == 16
    assert sides[5, 2].item() == pytest.approx(812.7, abs=0.1)
    dense = instantiate(model.dense_head.anchor_generator)(maps)
    assert [(a.tensor[0, 2] - a.tensor[0, 0]).item() for a in dense] == [2**n for n in range(5, 11)]
    pooler = instantiate(model.roi_heads.box_pooler)
    assert (pooler.min_level, pooler.max_level) == (2, 6)
    assert (pooler.canonical_box_size, pooler.canonical_level) == (56, 2)
