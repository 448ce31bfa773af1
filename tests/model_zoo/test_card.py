"""Recipe cards: complete, true, and as wide as a terminal."""

import re
from pathlib import Path

import pytest
from detectron2.config import instantiate

from brloss_d2.errors import InputError
from brloss_d2.model_zoo import config_file, describe, get_config, list_configs

SECTIONS = ["Published", "Train with", "Losses", "Optimizer", "Schedule", "Data", "Model"]


@pytest.mark.parametrize("name", [entry.name for entry in list_configs()])
def test_every_config_has_a_card(name: str) -> None:
    cfg = get_config(name)
    card = describe(name)
    lines = card.splitlines()
    assert lines[0] == name
    assert max(len(line) for line in lines if " " in line.strip()) <= 80, "but for long paths"
    assert [line[:12].strip() for line in lines[2:] if line[:1].strip()] == SECTIONS
    assert f"{cfg.train.max_iter:,} iterations" in card
    assert f"of {cfg.dataloader.train.total_batch_size} images" in re.sub(r"\s+", " ", card)
    assert re.search(rf"^Optimizer +\w+, lr {cfg.optimizer.lr:g},", card, re.M)
    file = Path(config_file(name)).relative_to(Path(__file__).parents[2])
    assert str(file) in card and "???" not in card


def test_content_of_a_card() -> None:
    card = describe("coco/cascade_rcnn_R_50_FPN_ce_1x")
    assert "Published    nothing\n" in card
    text = re.sub(r"\s+", " ", card)
    assert (
        "SigmoidCriterion(BinaryCrossEntropyLoss(), SmoothL1Loss(beta=0), normalizer=rows)" in text
    )
    predictors = [
        f"roi_heads.box_predictors[{i}]{x}" for i, x in enumerate(("", " x 0.5", " x 0.25"))
    ]
    assert f"{', '.join(predictors)}: SoftmaxCriterion(SmoothL1Loss(beta=0))" in text
    assert "lr x 0.1 at 58,640 and 80,630 (after epochs 8, 11)" in text
    assert "deviation: baselines (`ce`): lr 0.02" in text


def test_losses_of_a_ranking_recipe() -> None:
    text = re.sub(r"\s+", " ", describe("lvis_v1/mask_rcnn_R_50_FPN_rs_1x.py"))
    criterion = (
        "RankingCriterion(RankSortLoss(delta=0.5), GIoULoss(), SelfBalancer(), images_per_pool=4)"
    )
    assert f"proposal_generator x 0.2, roi_heads.box_predictor: {criterion}" in text
    assert "roi_heads.mask_head: MaskCriterion(DiceLoss(eps=1e-05)" in text
    assert "box AP 25.9 (RS Loss), mask AP 25.6, 0.87 s per iteration on 4 A100 GPUs" in text
    assert "RepeatFactorTrainingSampler by ceil_repeat_factors" in text
    assert "test_score_thresh=0.6" in text and "num_classes=1203" in text


def test_number_of_parameters() -> None:
    model = instantiate(get_config("coco/atss_R_50_FPN_brs_1x").model)
    count = sum(x.numel() for x in model.parameters()) / 1e6
    assert f"{count:.1f} million parameters" in describe("coco/atss_R_50_FPN_brs_1x")


def test_unknown_config() -> None:
    with pytest.raises(InputError, match="Did you mean coco/atss_R_50_FPN_brs_1x"):
        describe("atss_R_50_FPN_brs_1x")
