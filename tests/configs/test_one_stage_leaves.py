"""The recipes of the one-stage detectors."""

from pathlib import Path

import pytest
from detectron2.config import LazyConfig, instantiate

from tests.helpers.configs import build_without_weights

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("leaf", "lr", "batch", "steps"),
    [
        *(
            (f"{a}_R_50_FPN_{n}_1x", 0.008, 16, (58640, 80630))
            for a in ("atss", "paa")
            for n in ("ap", "bap", "rs", "brs")
        ),
        ("atss_R_50_FPN_focal_1x", 0.01, 16, (58640, 80630)),
        ("atss_R_50_FPN_dr_1x", 0.01, 16, (58640, 80630)),
        ("retinanet_R_50_FPN_dr_1x", 0.01, 16, (58640, 80630)),
        ("paa_R_50_FPN_focal_1x", 0.01, 16, (58640, 80630)),
        *(
            (f"retinanet_{x}_FPN_alrp_500s_100e", 0.008, 32, (274875, 348175))
            for x in ("R_50", "R_101", "X_101_64x4d")
        ),
        ("retinanet_R_50_FPN_alrp_iou_500s_100e", 0.008, 32, (219900, 293200)),
        ("retinanet_R_50_FPN_ap_iou_500s_100e", 0.002, 32, (219900, 293200)),
        *(
            (f"retinanet_{x}_FPN_alrp_800s_100e", 0.004, 16, (439800, 586400))
            for x in ("R_101", "X_101_64x4d", "X_101_64x4d_DCN")
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
    if leaf.endswith("100e"):
        assert [str(a._target_).split(".")[-1].strip("'>") for a in train] == [
            *("PhotometricDistortion", "Expand", "MinIoUCrop", "Resize", "RandomFlip")
        ]
        assert list(train[3].shape) == ([512, 512] if batch == 32 else [800, 800])


def test_parameters_of_one_stage_heads_and_pyramids():
    """As counted for the published models."""
    expected = {
        "atss_R_50_FPN_brs_1x": (5_303_553, 3_868_672),
        "atss_R_50_FPN_focal_1x": (4_918_618, 3_868_672),
        "paa_R_50_FPN_rs_1x": (5_303_553, 3_868_672),
        "retinanet_R_50_FPN_focal_1x": (6_463_220, 7_997_440),
        "retinanet_R_50_FPN_alrp_500s_100e": (5_107_880, 7_997_440),
        "retinanet_R_50_FPN_alrp_iou_500s_100e": (5_882_360, 7_997_440),
        "retinanet_R_50_FPN_ap_iou_500s_100e": (5_882_360, 7_997_440),
        "retinanet_R_101_FPN_alrp_800s_100e": (5_301_500, 7_997_440),
        "retinanet_X_101_64x4d_FPN_alrp_800s_100e": (5_301_500, 7_997_440),
        "retinanet_X_101_64x4d_DCN_FPN_alrp_800s_100e": (5_301_500, 7_997_440),
        "fovea_R_50_FPN_alrp_500s_100e": (4_914_260, 7_997_440),
    }
    for leaf, counts in expected.items():
        model = build_without_weights(LazyConfig.load(str(CONFIGS / f"coco/{leaf}.py")).model)
        head = sum(p.numel() for p in model.head.parameters())
        backbone = sum(p.numel() for p in model.backbone.parameters())
        pyramid = backbone - sum(p.numel() for p in model.backbone.bottom_up.parameters())
        assert (head, pyramid) == counts, leaf
