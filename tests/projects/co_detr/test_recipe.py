"""Loss weights, optimizer and schedule of Co-Deformable-DETR are the published ones."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig
from torch import nn

from brloss_d2.engine import load_config, params_by_name
from brloss_d2.losses import RankSortLoss
from brloss_d2.utils.config_nodes import walk_nodes

CONFIGS = Path(__file__).parents[3] / "projects/co_detr/configs"
LEAVES = [f"{b}_{loss}" for b in ("R_50", "swin_t", "swin_l") for loss in ("focal", "rs", "brs")]


def config(leaf: str) -> DictConfig:
    return LazyConfig.load(str(CONFIGS / f"co_deformable_detr_{leaf}_1x.py"))


def test_there_are_leaves() -> None:
    names = {path.stem for path in CONFIGS.glob("co_deformable_detr*.py")}
    assert names == {f"co_deformable_detr_{leaf}_1x" for leaf in LEAVES}
    quick = {path.stem for path in CONFIGS.glob("quick/co_deformable_detr*.py")}
    assert quick == {f"co_deformable_detr_R_18_{loss}_300it" for loss in ("focal", "rs", "brs")}


def test_the_readme_has_a_row_for_each_leaf() -> None:
    text = (CONFIGS.parent / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `co_detr/(co_deformable_detr\w+)` \|", text, re.MULTILINE)
    assert rows == [f"co_deformable_detr_{leaf}_1x" for leaf in LEAVES]


@pytest.mark.parametrize(
    ("leaf", "numbers", "frozen"),
    [
        ("R_50_brs", 65_073_444, 222_400),
        ("R_50_rs", 65_073_444, 222_400),
        ("R_50_focal", 65_076_774, 222_400),
        ("swin_t_brs", 65_616_478, 0),
        ("swin_t_focal", 65_619_808, 0),
    ],
)
def test_parameters(leaf: str, numbers: int, frozen: int) -> None:
    """Numbers of parameters are the published ones; inference needs three parts alone."""
    model = instantiate(config(leaf).model)
    assert count(model) == numbers
    assert count(model, trained=False) == frozen
    query_head = model.query_head
    unused = count(query_head.custom) + count(query_head.downsample)
    inference = sum(map(count, (model.backbone, model.neck, query_head))) - unused
    assert inference == (47_541_260 if leaf.startswith("R_50") else 48_084_294)
    parts = (model.proposal_generator, model.roi_heads, model.dense_head)
    expected = (14_306_705, 1_376_602) if leaf.endswith("focal") else (14_305_680, 1_374_297)
    assert tuple(map(count, parts)) == (601_645, *expected)


def count(module: nn.Module, trained: bool | None = None) -> int:
    chosen = (p for p in module.parameters() if trained in (None, p.requires_grad))
    return sum(p.numel() for p in chosen)


def test_all_normalization_of_the_resnet_is_frozen() -> None:
    model = instantiate(config("R_50_brs").model)
    names = [name for name, p in model.backbone.named_parameters() if p.requires_grad]
    assert len(names) == 42 and not any("norm" in name for name in names)
    norm = model.backbone.res3[0].conv1.norm
    before = norm.running_mean.clone()
    norm.train()(torch.randn(2, norm.num_features, 4, 4))
    assert torch.equal(norm.running_mean, before)
    assert model.backbone.res3[0].conv2.stride == (2, 2)


@pytest.mark.parametrize("leaf", LEAVES)
def test_optimizer(leaf: str) -> None:
    cfg = config(leaf)
    decay = 1e-4 if leaf.startswith("R_50") else 0.05
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (2e-4, decay)
    assert cfg.train.clip_grad_norm == 0.1
    model = cfg.optimizer.params.model = Named()
    optimizer = instantiate(cfg.optimizer)
    assert isinstance(optimizer, torch.optim.AdamW)
    rates = {}
    for group in optimizer.param_groups:
        assert (group["weight_decay"], tuple(group["betas"])) == (decay, (0.9, 0.999))
        rates.update({id(p): group["lr"] for p in group["params"]})
    found = {name: rates.get(id(p)) for name, p in model.named_parameters()}
    assert found == {
        "backbone.conv.weight": pytest.approx(2e-5),
        "backbone.conv.bias": pytest.approx(2e-5),
        "backbone.frozen": None,
        "attn.sampling_offsets.weight": pytest.approx(2e-5),
        "attn.sampling_offsets.bias": pytest.approx(2e-5),
        "attn.norm.weight": 2e-4,
        "attn.norm.bias": 2e-4,
        "content.weight": 2e-4,
    }


class Named(nn.Module):
    """Model with one parameter of each kind."""

    def __init__(self):
        super().__init__()
        self.backbone, self.attn = nn.Module(), nn.Module()
        self.backbone.conv = nn.Conv2d(1, 1, 1)
        self.backbone.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.attn.sampling_offsets, self.attn.norm = nn.Linear(2, 2), nn.LayerNorm(2)
        self.content = nn.Embedding(3, 2)


def test_lower_rates_are_those_of_backbone_and_sampling_offsets() -> None:
    cfg = config("R_50_brs")
    model = cfg.optimizer.params.model = instantiate(cfg.model)
    low = [g for g in instantiate(cfg.optimizer).param_groups if g["lr"] < 1e-4]
    found = {id(p) for group in low for p in group["params"]}
    attentions = [*model.query_head.encoder.layers, *model.query_head.decoder.layers]
    expected = {id(p) for p in model.backbone.parameters() if p.requires_grad}
    for layer in attentions:
        attention = layer.attn if hasattr(layer, "attn") else layer.cross_attn
        expected |= {id(p) for p in attention.sampling_offsets.parameters()}
    assert (len(attentions), found) == (12, expected)


def test_the_longest_name_counts() -> None:
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"norm": nn.LayerNorm(2)})})
    groups = params_by_name(model, base_lr=1.0, lr_factors={"backbone": 0.1, "backbone.norm": 0.5})
    assert [group["lr"] for group in groups] == [0.5]


@pytest.mark.parametrize(
    ("loss", "before", "after"),
    [
        ("focal", (1, 1, 0.1), (1, 0.1, 0.1)),
        ("rs", (1, 0.2, 0.04), (0.2, 0.04, 0.04)),
        ("brs", (1, 0.2, 0.04), (0.2, 0.04, 0.04)),
    ],
)
@pytest.mark.parametrize("backbone", ["R_50", "swin_t", "swin_l"])
def test_schedule(backbone: str, loss: str, before: tuple, after: tuple) -> None:
    cfg = config(f"{backbone}_{loss}")
    schedule = instantiate(cfg.lr_multiplier)
    total = cfg.train.max_iter
    assert (total, cfg.train.eval_period, schedule(0)) == (12 * 7393, 7393, 1)
    for epoch, low, high in zip((10, 11, 12), before, after, strict=True):
        last, first = 7393 * epoch - 1, min(7393 * epoch, total - 1)
        assert schedule(last / total) == pytest.approx(low)
        assert schedule(first / total) == pytest.approx(high)
    weights = {
        "R_50": "torchvision://resnet50",
        "swin_t": "swin://swin_tiny_patch4_window7_224",
        "swin_l": "swin://swin_large_patch4_window12_384_22k",
    }
    assert cfg.train.init_checkpoint == weights[backbone]


@pytest.mark.parametrize("leaf", LEAVES)
def test_weights_of_the_losses(leaf: str) -> None:
    model = config(leaf).model
    heads = (model.proposal_generator, model.roi_heads.box_predictor, model.dense_head)
    ranking = leaf.endswith("rs")
    assert model.query_losses.weight == 2.0
    matcher = model.query_losses.matcher
    costs = (matcher.cls_weight, matcher.l1_weight, matcher.giou_weight)
    assert costs == (4 if ranking else 2, 5, 2)
    assert [head.loss_weight for head in heads] == ([1, 5, 5] if ranking else [12, 12, 12])
    for site in ("decoder", "encoder", "custom"):
        criterion = model.query_losses[site]
        assert [name for name in criterion.box_loss if name != "_target_"] == [
            *("loss_l1", "loss_giou")
        ]
        if not ranking:
            assert criterion.box_weight == {"loss_l1": 2.5, "loss_giou": 1.0}
    if ranking:
        rpn = model.proposal_generator.criterion.criterion
        criteria = [rpn, *(head.criterion for head in heads[1:]), model.query_losses.decoder]
        assert all(c.images_per_pool == 4 and not c.score_weighted for c in criteria)
    else:
        assert heads[1].criterion.box_weight == 10
        assert heads[2].criterion.box_weight == 2
        assert heads[2].criterion.quality.loss_weight == 1


@pytest.mark.parametrize("backbone", ["R_50", "swin_t", "swin_l"])
def test_rs_differs_from_brs_in_the_loss_alone(backbone: str) -> None:
    cfg, expected = config(f"{backbone}_rs"), config(f"{backbone}_brs")
    changed = 0
    for node in walk_nodes(expected.model):
        if "cls_loss" in node:
            node.cls_loss._target_, changed = RankSortLoss, changed + 1
    assert changed == 6
    assert cfg == expected


@pytest.mark.parametrize("leaf", LEAVES)
def test_proposals_and_samples(leaf: str) -> None:
    rpn, roi = config(leaf).model.proposal_generator, config(leaf).model.roi_heads
    ranking = leaf.endswith("rs")
    assert (rpn.pre_nms_topk[0], rpn.nms_thresh) == (4000, 0.7)
    assert rpn.post_nms_topk[0] == (4000 if ranking else 1000)
    samples = (rpn.batch_size_per_image, roi.batch_size_per_image)
    assert samples == ((None, None) if ranking else (256, 512))
    assert roi.proposal_append_gt != ranking
    assert rpn.min_box_size == (-1 if ranking else 0)


def test_anchors_of_the_first_cells() -> None:
    """Anchors are centered on the corner of the cell, ratio by ratio, each in three sizes."""
    model = config("R_50_brs").model
    maps = [torch.zeros(1, 1, 2, 2)] * 5
    anchors = [a.tensor for a in instantiate(model.proposal_generator.anchor_generator)(maps)]
    side = 32 / 2**0.5
    expected = [[-side, -side / 2, side, side / 2], [-16.0, -16, 16, 16], [8 - side, -side / 2]]
    torch.testing.assert_close(anchors[0][0], torch.tensor(expected[0]))
    torch.testing.assert_close(anchors[0][3], torch.tensor(expected[1]))
    torch.testing.assert_close(anchors[0][9, :2], torch.tensor(expected[2]))
    assert (anchors[4][3, 2] - anchors[4][3, 0]).item() == 512
    (dense,) = instantiate(model.dense_head.anchor_generator)(maps)[:1]
    assert dense.tensor.tolist()[:2] == [[-32, -32, 32, 32], [-24, -32, 40, 32]]


def test_number_of_classes_reaches_all_heads(tmp_path: Path) -> None:
    cfg, _ = load_config(
        str(CONFIGS / "quick/co_deformable_detr_R_18_brs_300it.py"),
        ["model.query_head.num_classes=3", "optimizer.lr=0.002"],
    )
    model = instantiate(cfg.model)
    assert model.query_head.class_branches[0].out_features == 3
    assert model.roi_heads.num_classes == model.roi_heads.box_predictor.num_classes == 3
    assert model.dense_head.head.num_classes == model.dense_head.matcher.num_classes == 3


def test_learning_rate_from_the_command_line() -> None:
    file = str(CONFIGS / "co_deformable_detr_R_50_brs_1x.py")
    overrides = ["optimizer.lr=1e-4", "optimizer.params.lr_factors.backbone=0.5"]
    cfg, _ = load_config(file, overrides)
    cfg.optimizer.params.model = Named()
    rates = [group["lr"] for group in instantiate(cfg.optimizer).param_groups]
    assert sorted(rates) == pytest.approx([1e-5, 5e-5, 1e-4])
