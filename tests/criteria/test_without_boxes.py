"""Heads without boxes, whose positives have a quality of their own."""

from dataclasses import replace

import pytest
import torch

from brloss_d2.criteria import RankingCriterion, RelativeIoU, ScoreAndIoU, SigmoidCriterion
from brloss_d2.losses import (
    BucketedRankSortLoss,
    GIoULoss,
    QualityFocalLoss,
    RankSortLoss,
    SelfBalancer,
    SigmoidFocalLoss,
    paired_box_iou,
)
from tests.helpers.batches import random_batch

# Two images of five rows.
LABELS = [0, 3, 2, 1, -1, 3, 1, 0, 3, 2]

CRITERIA = {
    "rs": lambda boxes: RankingCriterion(RankSortLoss(), boxes, SelfBalancer(), images_per_pool=1),
    "brs": lambda boxes: RankingCriterion(BucketedRankSortLoss(), boxes, SelfBalancer()),
    "focal": lambda boxes: SigmoidCriterion(SigmoidFocalLoss(), boxes),
    "qfl": lambda boxes: SigmoidCriterion(QualityFocalLoss(), boxes),
    "iabce": lambda boxes: SigmoidCriterion(QualityFocalLoss(), boxes, target=ScoreAndIoU(tau=2.0)),
    "psl": lambda boxes: SigmoidCriterion(QualityFocalLoss(), boxes, target=RelativeIoU()),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_quality_stands_for_the_iou_of_boxes(name):
    """The terms of the classes are those of a head whose boxes have that IoU; no box term."""
    matched = replace(random_batch(LABELS), rows_per_image=[5, 5])
    quality = paired_box_iou(matched.pred_boxes, matched.gt_boxes).detach()
    bare = replace(matched, pred_boxes=None, pred_deltas=None, gt_deltas=None, quality=quality)
    with_boxes, without = CRITERIA[name](GIoULoss())(matched), CRITERIA[name]({})(bare)
    assert without.losses == {k: v for k, v in with_boxes.losses.items() if k != "loss_box_reg"}
    assert torch.equal(without.box_weights, with_boxes.box_weights)
    assert torch.equal(without.cls_total, with_boxes.cls_total)


def test_another_quality_changes_the_loss():
    matched = random_batch(LABELS)
    ones = torch.ones(len(matched.gt_boxes))
    outputs = [CRITERIA["qfl"]({})(replace(matched, quality=q)) for q in (ones, 0.5 * ones)]
    assert outputs[0].losses["loss_cls"] != outputs[1].losses["loss_cls"]


def test_neither_boxes_nor_quality():
    matched = replace(random_batch(LABELS), pred_boxes=None)
    with pytest.raises(ValueError, match="need `quality`"):
        CRITERIA["rs"]({})(matched)
    with pytest.raises(ValueError, match="GIoULoss needs pred_boxes"):
        CRITERIA["focal"](GIoULoss())(matched)


def test_a_quality_of_another_length():
    with pytest.raises(ValueError, match="one entry for each"):
        replace(random_batch(LABELS), quality=torch.ones(1000))
