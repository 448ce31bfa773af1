"""Softmax cross-entropy with hard negatives: published values, images without positives."""

import pytest
import torch
import torch.nn.functional as F

from brloss_d2.criteria import HardNegativeCriterion, MatchedPredictions
from brloss_d2.losses import SmoothL1Loss

# Two classes and the background; the sixth row is ignored.
LOGITS = torch.tensor(
    [[2, 0, 1], [0, 1, 0], [0.5, 0.2, 0.9], [1, 1, 3], [0, 2, 1], [3, 0, 0], [-1, 0, 4]]
)
LABELS = torch.tensor([0, 2, 2, 2, 2, -1, 2])
VALUES = [0.407606, 1.551445, 0.773300, 0.239545, 1.407606, 0, 0.024745]


def matched(labels=LABELS, rows_per_image=(7,), boxes=1, dtype=torch.float32):
    zeros = torch.zeros(boxes, 4)
    return MatchedPredictions(
        logits=LOGITS[: len(labels)].to(dtype).clone().requires_grad_(),
        labels=labels,
        pred_boxes=zeros,
        gt_boxes=zeros,
        num_classes=2,
        rows_per_image=rows_per_image,
        pred_deltas=torch.tensor([[0.3, -0.2, 2.0, 0.1]]).expand(boxes, 4),
        gt_deltas=zeros,
    )


def criterion(**options) -> HardNegativeCriterion:
    return HardNegativeCriterion(SmoothL1Loss(beta=1.0), box_weight=1.5, **options)


def test_published_values():
    """One positive and the three hardest of five negatives, divided by 2: an empty image counts."""
    given = matched(rows_per_image=(7, 0))
    values = F.cross_entropy(LOGITS, LABELS, ignore_index=-1, reduction="none")
    torch.testing.assert_close(values, torch.tensor(VALUES), rtol=0, atol=1e-6)
    assert criterion().hard_negatives(values, given).nonzero().flatten().tolist() == [1, 2, 4]
    output = criterion()(given)
    assert output.losses["loss_cls"].item() == pytest.approx(2.069978, abs=1e-6)
    assert output.losses["loss_box_reg"].item() == pytest.approx(1.177500, abs=1e-6)
    assert output.cls_total == output.losses["loss_cls"]
    assert output.box_weights.tolist() == [1]
    output.losses["loss_cls"].backward()
    assert given.logits.grad.any(1).tolist() == [True, True, True, False, True, False, False]


def test_all_negatives_of_an_image_without_positives():
    labels = torch.tensor([2, 2, -1, 0, 2, 2, 2])
    given = matched(labels, rows_per_image=(3, 4))
    values = F.cross_entropy(LOGITS, labels, ignore_index=-1, reduction="none")
    kept = criterion(negative_ratio=1).hard_negatives(values, given)
    assert kept.tolist() == [True, True, False, False, False, True, False]


@pytest.mark.parametrize("rows", [0, 3])
def test_no_positives(rows):
    given = matched(LABELS[1 : rows + 1], rows_per_image=(rows,), boxes=0)
    output = criterion()(given)
    assert output.losses.keys() == {"loss_cls", "loss_box_reg"}
    assert output.losses["loss_box_reg"] == 0
    sum(output.losses.values()).backward()
    assert given.logits.grad.isfinite().all()


def test_more_negatives_than_there_are():
    kept = criterion(negative_ratio=100).hard_negatives(torch.tensor(VALUES), matched())
    assert torch.equal(kept, LABELS == 2)


def test_half_precision_and_probabilities():
    output = criterion()(matched(dtype=torch.bfloat16))
    assert output.losses["loss_cls"].dtype == torch.float32
    probs = criterion().predict_probs(LOGITS)
    torch.testing.assert_close(probs, LOGITS.softmax(1)[:, :2])
    assert criterion().num_logits(2) == 3


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="negative_ratio must be a finite number >= 0, got -1"):
        criterion(negative_ratio=-1)
