"""The criteria of configs/common/criteria.py: names, sites, and what the papers say of each."""

import pytest
import torch

from brloss_d2.criteria import MatchedPredictions
from brloss_d2.errors import InputError
from brloss_d2.model_zoo import get_criterion, list_criteria
from tests.helpers.criteria import ONE_STAGE, RCNN_CRITERIA, build_criterion

# Of all sites, but for the exceptions below.
CLS_LOSSES = {
    "ce": "BinaryCrossEntropyLoss()",
    "focal": "SigmoidFocalLoss(alpha=0.25, gamma=2.0)",
    "qfl": "QualityFocalLoss(beta=2.0)",
    "vfl": "VarifocalLoss(alpha=0.75, gamma=2.0)",
    "dr": "DRLoss(positive_softness=1.0, negative_softness=0.07982356001479281, sharpness=6.0, "
    "weight=4.0, margin=0.5, images_per_pool=1)",
    "iabce": "IABCELoss(gamma=2.0)",
    "psl": "PositionSupervisedLoss(alpha=0.25, gamma=2.0)",
    "tal": "QualityFocalLoss(beta=2.0)",
    "corr": "SigmoidFocalLoss(alpha=0.25, gamma=2.0)",
    "wce": "ClassWeightedLoss(counts=None, beta=0.999)",
    "wfocal": "ClassWeightedLoss(counts=None, beta=0.999)",
    "mal": "MatchabilityAwareLoss(gamma=1.5)",
    "ap": "APLoss(delta=1.0)",
    "bap": "BucketedAPLoss(delta=1.0)",
    "rs": "RankSortLoss(delta=0.5)",
    "brs": "BucketedRankSortLoss(delta=0.5)",
    "alrp": "ALRPLoss(delta=1.0)",
}
EXCEPTIONS = {
    ("corr", "fovea"): "SigmoidFocalLoss(alpha=0.4, gamma=1.5)",
    ("focal", "fovea"): "SigmoidFocalLoss(alpha=0.4, gamma=1.5)",
    ("ap", "paa"): "APLoss(delta=0.5)",
    ("bap", "paa"): "BucketedAPLoss(delta=0.5)",
}
# Box loss and its weight with AP Loss (None: self-balanced), then the same with hard targets.
BOX_LOSSES = {
    "rpn": ("GIoULoss()", None, "SmoothL1Loss(beta=0.0)", 1.0),
    "atss": ("GIoULoss()", 2.0, "GIoULoss()", 2.0),
    "paa": ("GIoULoss()", 1.0, "GIoULoss()", 1.3),
    "retinanet": ("SmoothL1Loss(beta=1.0)", 0.25, "SmoothL1Loss(beta=0.0)", 1.0),
    "fovea": ("SmoothL1Loss(beta=0.11)", 0.25, "SmoothL1Loss(beta=0.11)", 1.0),
}
HARD_TARGETS = ("ce", "focal", "wce", "wfocal", "corr", "dr")
SOFT_TARGETS = {"qfl": 2.0, "vfl": 1.5, "mal": 1.5, "iabce": 1.5, "psl": 1.5, "tal": 2.0}
PARTS = {
    "iabce": "ScoreAndIoU(alpha=0.25, floor=0.01, tau=None)",
    "psl": "RelativeIoU(power=2.0)",
    "tal": "TaskAlignment(alpha=1.0, beta=6.0)",
    "corr": "CorrelationLoss(kind='concordance', weight=0.2, per='pool')",
    ("corr", "retinanet"): "CorrelationLoss(kind='pearson', weight=0.1, per='level')",
}


def test_names_of_the_criteria() -> None:
    assert set(list_criteria()) == set(CLS_LOSSES) == set(list_criteria("atss"))
    assert set(RCNN_CRITERIA) == set(CLS_LOSSES) - {*HARD_TARGETS, *SOFT_TARGETS} | {"ce"}
    for site in (*ONE_STAGE, "retinanet_500s", "fovea_500s"):
        assert list_criteria(site) == list_criteria()
    for site in ("mask", "rpn", "rpn_500s", "roi_500s"):
        assert list_criteria(site) == RCNN_CRITERIA
    assert list_criteria("retinanet_800s") == ["alrp"]


@pytest.mark.parametrize(
    ("name", "site"),
    [(n, s) for s in BOX_LOSSES for n in CLS_LOSSES if s != "rpn" or n in RCNN_CRITERIA],
)
def test_content(name: str, site: str) -> None:
    criterion = build_criterion(name, site)
    cls_loss = repr(criterion.cls_loss)
    if name in ("wce", "wfocal"):
        inner = repr(criterion.cls_loss.cls_loss)
        plain = name.removeprefix("w")
        assert inner == EXCEPTIONS.get((plain, site), CLS_LOSSES[plain])
        cls_loss = cls_loss.replace(
            f"\n  counts=None, beta=0.999\n  (cls_loss): {inner}\n", "counts=None, beta=0.999"
        )
    assert cls_loss == EXCEPTIONS.get((name, site), CLS_LOSSES[name])
    of_ap, weight_of_ap, of_hard, weight_of_hard = BOX_LOSSES[site]
    if name == "alrp":
        assert repr(criterion.box_loss) == "GIoULoss()"
        assert criterion.error_scale == pytest.approx(1 / 0.6 if site == "rpn" else 1)
        assert criterion.balancer.weight == 50
        return
    parts = [getattr(criterion, part, None) for part in ("target", "correlation")]
    expected = PARTS.get((name, site), PARTS.get(name))
    assert [repr(part) for part in parts if part] == ([expected] if expected else [])
    box_loss = repr(criterion.box_losses["loss_box_reg"])
    if (name, site) == ("dr", "retinanet"):
        assert (box_loss, criterion.box_weight) == (
            "SmoothL1Loss(beta=0.11)",
            {"loss_box_reg": 0.25},
        )
    elif name in HARD_TARGETS:
        assert (box_loss, criterion.box_weight) == (of_hard, {"loss_box_reg": weight_of_hard})
    elif name in SOFT_TARGETS:
        assert (box_loss, criterion.box_weight) == (
            "GIoULoss()",
            {"loss_box_reg": SOFT_TARGETS[name]},
        )
    else:
        constant = weight_of_ap if name in ("ap", "bap") else None
        assert box_loss == (of_ap if name in ("ap", "bap") else "GIoULoss()")
        balancer = f"ConstantBalancer(weight={constant})" if constant else "SelfBalancer()"
        assert repr(criterion.balancer) == balancer
        assert criterion.images_per_pool == 4


@pytest.mark.parametrize("name", sorted({*CLS_LOSSES} - {"alrp"}))
def test_content_of_solov2(name: str) -> None:
    """Dice loss self-balanced with ranking losses, three times as much with all others."""
    assert "alrp" not in list_criteria("solov2")
    classes, masks = (build_criterion(name, site) for site in ("solov2", "solov2_mask"))
    assert len(classes.box_losses) == 0
    assert repr(masks.mask_loss) == "DiceLoss(eps=0.002)"
    if name in ("ap", "bap", "rs", "brs"):
        assert repr(classes.cls_loss) == CLS_LOSSES[name]
        assert repr(masks.balancer) == "SelfBalancer()"
        assert classes.images_per_pool == masks.images_per_pool == 8
    else:
        assert repr(masks.balancer) == "ConstantBalancer(weight=3.0)"
        assert (classes.normalizer == "positives_plus_one") == (name in HARD_TARGETS)


def test_focal_loss_of_solov2() -> None:
    """Three cells, two of them positive: the sum over all classes by 2 + 1."""
    logits = torch.tensor([[1.25, -0.25], [0.5, -2.0], [-1.0, 0.75]])
    labels, boxes = torch.tensor([0, 2, 1]), torch.zeros(2, 4)
    matched = MatchedPredictions(logits, labels, None, boxes, num_classes=2)
    loss = build_criterion("focal", "solov2")(matched).losses["loss_cls"]
    assert loss.item() == pytest.approx(0.132428, abs=5e-7)


def test_pools_of_the_hundred_epochs() -> None:
    for name in ("ap", "bap", "rs", "brs", "alrp"):
        for site in ("rpn", "roi", "retinanet", "fovea"):
            expected = build_criterion(name, site, pools_per_epoch=3665)
            expected.images_per_pool = 8
            assert repr(build_criterion(name, f"{site}_500s", pools_per_epoch=3665)) == repr(
                expected
            )
            node = get_criterion(name, f"{site}_500s")
            assert node.images_per_pool == 8
    for site in ("rpn_500s", "roi_500s", "retinanet_500s", "fovea_500s", "retinanet_800s"):
        assert get_criterion("alrp", site).balancer.pools_per_epoch == 3665
    assert get_criterion("alrp", "retinanet_800s").images_per_pool == 4


def test_yolact() -> None:
    assert list_criteria("yolact") == list_criteria("yolact_mask") == list_criteria()
    for name in list_criteria():
        criterion, masks = build_criterion(name, "yolact"), build_criterion(name, "yolact_mask")
        ranked = name in ("ap", "bap", "rs", "brs", "alrp")
        dice = ("DiceLoss(eps=1e-05)", "SelfBalancer()", None)
        entropy = ("MaskCrossEntropyLoss()", "ConstantBalancer(weight=6.125)", 100)
        found = (repr(masks.mask_loss), repr(masks.balancer), masks.max_masks_per_image)
        assert found == (dice if ranked else entropy)
        if ranked:
            assert criterion.images_per_pool == masks.images_per_pool == 8
            assert name == "alrp" or criterion.disjoint_is_negative
        if name in HARD_TARGETS and name != "ce":
            assert repr(criterion.box_losses["loss_box_reg"]) == "SmoothL1Loss(beta=1.0)"
            assert criterion.box_weight == {"loss_box_reg": 1.5}
    assert repr(build_criterion("ce", "yolact")).startswith(
        "HardNegativeCriterion(\n  box_weight=1.5, negative_ratio=3.0\n"
    )


def test_a_node_may_be_changed() -> None:
    node = get_criterion("brs", "roi")
    node.images_per_pool = 1
    assert get_criterion("brs", "roi").images_per_pool == 4


@pytest.mark.parametrize(
    ("name", "site", "message"),
    [
        ("brz", "atss", "no criterion 'brz' for 'atss': expected one of ce, focal, .*brs"),
        ("focal", "roi", "no criterion 'focal' for 'roi': expected one of ce, ap"),
        ("brs", "ssd", "no site 'ssd': expected one of atss, fovea"),
    ],
)
def test_unknown_names(name: str, site: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        get_criterion(name, site)
