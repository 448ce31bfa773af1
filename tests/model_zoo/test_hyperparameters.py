"""The column #H: numbers of hyper-parameters by one rule, and those that were published."""

import pytest

from brloss_d2.model_zoo import get_config, get_criterion, hyperparameters, list_criteria
from brloss_d2.model_zoo.documents import with_tables
from brloss_d2.model_zoo.entries import published
from brloss_d2.model_zoo.hyperparameters import _of_criterion

# What the rule gives, by recipe.
COUNTS = {
    "coco/faster_rcnn_R_50_FPN_ce_1x": 7,
    "coco/faster_rcnn_R_50_FPN_bap_1x": 3,
    "coco/faster_rcnn_R_50_FPN_alrp_1x": 3,
    "coco/faster_rcnn_R_50_FPN_rs_1x": 3,
    "coco/mask_rcnn_R_50_FPN_ce_1x": 8,
    "coco/mask_rcnn_R_50_FPN_brs_1x": 3,
    "coco/cascade_rcnn_R_50_FPN_brs_1x": 5,
    "coco/atss_R_50_FPN_focal_1x": 4,
    "coco/atss_R_50_FPN_ap_1x": 2,
    "coco/atss_R_50_FPN_brs_1x": 1,
    "coco/paa_R_50_FPN_focal_1x": 4,
    "coco/paa_R_50_FPN_bap_1x": 2,
    "coco/paa_R_50_FPN_rs_1x": 1,
    "coco/retinanet_R_50_FPN_focal_1x": 3,
    "coco/retinanet_R_50_FPN_ap_1x": 3,
    "coco/retinanet_R_50_FPN_alrp_1x": 1,
    "coco/fovea_R_50_FPN_focal_500s_100e": 4,
    "coco/fovea_R_50_FPN_ap_500s_100e": 3,
    "coco/fovea_R_50_FPN_alrp_500s_100e": 1,
    "coco/yolact_R_50_ce_55e": 5,
    "coco/yolact_R_50_rs_55e": 1,
    "coco/solov2_R_101_FPN_focal_3x": 3,
    "coco/solov2_light_R_34_FPN_rs_3x": 1,
}
# Those of a classification loss, without the weight of the boxes.
LOSSES = {
    "ce": 0, "focal": 2, "qfl": 1, "vfl": 2, "mal": 1, "iabce": 2, "psl": 3, "tal": 3, "corr": 3,
    "wce": 1, "wfocal": 3, "dr": 5, "ap": 1, "bap": 1, "rs": 1, "brs": 1, "alrp": 1,
}  # fmt: skip
# Where the published number is another.
OTHERS = {
    "coco/faster_rcnn_R_50_FPN_ce_1x": (9, "with smooth L1"),
    "coco/atss_R_50_FPN_focal_1x": (5, "one more"),
    "coco/retinanet_R_50_FPN_focal_1x": (4, "with smooth L1"),
    "coco/retinanet_R_50_FPN_dr_1x": (5, "without the boxes"),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_recipes(name: str) -> None:
    model = get_config(name).model
    found = hyperparameters(model)
    assert found is not None and len(found) == COUNTS[name]


@pytest.mark.parametrize("loss", list_criteria("fovea"))
def test_counts_of_losses(loss: str) -> None:
    found = dict(_of_criterion(get_criterion(loss, "fovea")))
    parts = [key for key in found if key.startswith(("cls_loss", "target", "correlation"))]
    assert len(parts) == LOSSES[loss], parts


def test_smooth_l1_has_one_more_and_makes_the_published_count() -> None:
    model = get_config("coco/faster_rcnn_R_50_FPN_ce_1x").model
    for owner in (model.proposal_generator, model.roi_heads.box_predictor):
        owner.criterion.box_loss.beta = 1 / 9
    assert len(hyperparameters(model) or ()) == 9


def test_published_numbers_are_those_of_the_rule_but_for_a_few() -> None:
    stated = {
        name: row["hyperparameters"]
        for name, row in published()["results"].items()
        if "hyperparameters" in row
    }
    assert len(stated) >= 8
    for name, count in stated.items():
        counted = len(hyperparameters(get_config(name).model) or ())
        assert count == (OTHERS[name][0] if name in OTHERS else counted), name
        assert (name in OTHERS) == (count != counted), name


def test_the_keys_are_those_of_the_config() -> None:
    model = get_config("coco/mask_rcnn_R_50_FPN_ce_1x").model
    assert hyperparameters(model) == {
        "proposal_generator.loss_weight": 1.0,
        "proposal_generator.batch_size_per_image": 256,
        "proposal_generator.positive_fraction": 0.5,
        "proposal_generator.criterion.box_weight": 1.0,
        "roi_heads.batch_size_per_image": 512,
        "roi_heads.positive_fraction": 0.25,
        "roi_heads.box_predictor.criterion.box_weight": 1.0,
        "roi_heads.mask_head.criterion.balancer.weight": 1.0,
    }


@pytest.mark.parametrize(
    "name", ["coco/cascade_rcnn_R_50_FPN_ce_1x", "co_detr/co_deformable_detr_R_50_brs_1x"]
)
def test_no_number(name: str) -> None:
    assert hyperparameters(get_config(name).model) is None


def test_the_column() -> None:
    table = with_tables("<!-- zoo: coco/atss_* -->\n<!-- end -->")
    header, _, *rows = [line.split(" | ") for line in table.splitlines()[2:-2]]
    column = header.index("#H")
    counts = {row[0].strip("| `"): row[column] for row in rows}
    assert counts["coco/atss_R_50_FPN_focal_1x"] == "5 (4)"
    assert counts["coco/atss_R_50_FPN_bap_1x"] == "(2)"
    assert counts["coco/atss_R_50_FPN_brs_1x"] == "1"
    assert "#H" not in with_tables("<!-- zoo: co_detr/*_R_50_* -->\n<!-- end -->")
