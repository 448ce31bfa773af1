"""Schedules and recipes have the numbers of the published ones."""

from pathlib import Path

import pytest
from detectron2.config import LazyConfig, instantiate

from brloss_d2.modeling import FixedStatsBatchNorm2d

CONFIGS = Path(__file__).parents[2] / "configs"


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
