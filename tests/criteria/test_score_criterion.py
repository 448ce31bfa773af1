"""The parts of the score-based one-stage criteria: divisors, box weights, quality branch."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from brloss_d2.criteria import (
    Centerness,
    MatchedPredictions,
    PredictedIoU,
    QualityBranch,
    SigmoidCriterion,
    TopScore,
)
from brloss_d2.errors import InputError
from brloss_d2.losses import (
    BinaryCrossEntropyLoss,
    GIoULoss,
    QualityFocalLoss,
    SmoothL1Loss,
    paired_box_iou,
)
from tests.helpers.batches import CLASSES, random_batch
from tests.helpers.criteria import ONE_STAGE, ONE_STAGE_CRITERIA, build_criterion

# Image 0 has two positives, image 1 one, image 2 none.
LABELS = [0, 3, 1, 3, 2, -1, 3, 3]
ROWS = [4, 2, 2]


def batch(labels=LABELS, rows=ROWS) -> MatchedPredictions:
    matched = random_batch(labels)
    g = torch.Generator().manual_seed(1)
    return replace(
        matched,
        rows_per_image=rows,
        references=matched.gt_boxes + torch.tensor([-4.0, 2, 3, 1]),
        quality_logits=torch.randn(len(matched.gt_boxes), generator=g).requires_grad_(),
    )


@pytest.mark.parametrize(
    ("normalizer", "count"),
    [
        ("rows", 7),
        ("positives", 3),
        ("positives_per_image", 4),
        ("positives_or_images", 3),
        ("positives_and_images", 6),
        ("positives_plus_one", 4),
    ],
)
def test_divisors(normalizer, count):
    matched = batch()
    losses = SigmoidCriterion(
        BinaryCrossEntropyLoss(), SmoothL1Loss(), normalizer=normalizer, box_normalizer="positives"
    )(matched).losses
    rows = matched.labels >= 0
    targets = F.one_hot(matched.labels[rows], CLASSES + 1)[:, :CLASSES].float()
    expected = F.binary_cross_entropy_with_logits(matched.logits[rows], targets, reduction="sum")
    torch.testing.assert_close(losses["loss_cls"], expected / count)
    torch.testing.assert_close(losses["loss_box_reg"], matched.pred_deltas.abs().sum() / 3)


def test_one_image_with_few_positives():
    labels = [3, 3, 3, 3, 2, 3, 3, 3]
    matched = batch(labels)
    criterion = SigmoidCriterion(
        BinaryCrossEntropyLoss(), SmoothL1Loss(), normalizer="positives_or_images"
    )
    torch.testing.assert_close(
        criterion(matched).losses["loss_box_reg"], matched.pred_deltas.abs().sum() / 3
    )


def test_centerness_by_hand():
    """A point 2 from the left and 8 from the right, 5 from the top and 5 from the bottom."""
    gt = torch.tensor([[0.0, 0, 10, 10]])
    reference = torch.tensor([[1.0, 4, 3, 6]])
    matched = MatchedPredictions(
        torch.zeros(1, 1), torch.tensor([0]), gt, gt, 1, references=reference
    )
    torch.testing.assert_close(Centerness()(matched), torch.tensor([0.5]))


def test_what_quality_needs():
    matched = MatchedPredictions(**{**vars(batch()), "references": None, "quality_logits": None})
    with pytest.raises(ValueError, match="Centerness needs `references`"):
        Centerness()(matched)
    with pytest.raises(ValueError, match="the head has none"):
        QualityBranch(PredictedIoU())(matched)


@pytest.mark.parametrize("quality", [Centerness(), PredictedIoU(), TopScore()])
def test_box_losses_are_averaged_with_weights(quality):
    matched = batch()
    criterion = SigmoidCriterion(
        BinaryCrossEntropyLoss(), GIoULoss(), box_weight=2.0, box_weighting=quality
    )
    output = criterion(matched)
    weights = quality(matched)
    assert not weights.requires_grad
    assert ((weights >= 0) & (weights <= 1)).all()
    errors = GIoULoss()(matched.pred_boxes, matched.gt_boxes)
    expected = 2 * (errors * weights).sum() / weights.sum().clamp(min=1)
    torch.testing.assert_close(output.losses["loss_box_reg"], expected)
    assert torch.equal(output.box_weights, weights)


def test_quality_branch():
    matched = batch()
    criterion = SigmoidCriterion(
        BinaryCrossEntropyLoss(),
        GIoULoss(),
        quality=QualityBranch(PredictedIoU(), loss_weight=0.5),
    )
    losses = criterion(matched).losses
    targets = paired_box_iou(matched.pred_boxes, matched.gt_boxes).detach()
    expected = F.binary_cross_entropy_with_logits(matched.quality_logits, targets)
    torch.testing.assert_close(losses["loss_quality"], 0.5 * expected)
    losses["loss_quality"].backward()
    assert matched.pred_deltas.grad is None  # the target teaches nothing


def test_soft_targets_are_the_iou_of_the_predicted_box():
    matched = batch()
    losses = SigmoidCriterion(QualityFocalLoss(), GIoULoss())(matched).losses
    rows = matched.labels >= 0
    targets = F.one_hot(matched.labels[rows], CLASSES + 1)[:, :CLASSES].float()
    targets[targets > 0] = paired_box_iou(matched.pred_boxes, matched.gt_boxes).detach()
    expected = QualityFocalLoss()(matched.logits[rows], targets).sum() / 3
    torch.testing.assert_close(losses["loss_cls"], expected)
    losses["loss_cls"].backward()
    assert matched.pred_deltas.grad is None


def test_a_part_of_a_batch_keeps_its_references_and_quality():
    matched = batch()
    first, second, third = matched.split(1)
    assert torch.equal(torch.cat([first.references, second.references]), matched.references)
    assert torch.equal(second.quality_logits, matched.quality_logits[2:])
    assert third.references.shape == (0, 4)


@pytest.mark.parametrize("architecture", ONE_STAGE)
@pytest.mark.parametrize("name", ONE_STAGE_CRITERIA)
@pytest.mark.parametrize("labels", [LABELS, [3] * 8, [-1] * 8], ids=["some", "none", "ignored"])
def test_finite_attached_and_of_the_same_names(architecture, name, labels):
    criterion = build_criterion(name, architecture, pools_per_epoch=10)
    names = criterion(batch()).losses.keys()
    matched = batch(labels)
    losses = criterion(matched).losses
    assert losses.keys() == names
    leaves = [matched.logits, matched.pred_deltas]
    if getattr(criterion, "quality", None) is not None:
        leaves.append(matched.quality_logits)
    gradients = torch.autograd.grad(sum(losses.values()), leaves)
    assert all(value.isfinite() for value in losses.values())
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize(("architecture", "name"), [("ssd", "rs"), ("atss", "softmax")])
def test_unknown_names(architecture, name):
    with pytest.raises(InputError, match="expected one of"):
        build_criterion(name, architecture, pools_per_epoch=1)


class TwoProcesses:
    """The other one has 5 positives in as many rows, and box weights that add up to 2."""

    size = 2

    def __init__(self, group):
        pass

    def sum(self, x):
        return x + torch.tensor([5.0, 5.0, 2.0])


def test_divisors_are_means_over_processes(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("brloss_d2.criteria.pooling.PoolGroup", TwoProcesses)
    matched = batch()
    parts = dict(box_weighting=PredictedIoU(), quality=QualityBranch(PredictedIoU()))
    alone = SigmoidCriterion(BinaryCrossEntropyLoss(), GIoULoss(), **parts)
    both = SigmoidCriterion(BinaryCrossEntropyLoss(), GIoULoss(), sync_normalizer=True, **parts)
    found = both(matched).losses
    monkeypatch.undo()
    expected = alone(matched).losses
    for name in ("loss_cls", "loss_quality"):
        torch.testing.assert_close(found[name], expected[name] * 3 / ((3 + 5) / 2))
    weight = PredictedIoU()(matched).sum()
    torch.testing.assert_close(
        found["loss_box_reg"], expected["loss_box_reg"] * weight.clamp(min=1) / ((weight + 2) / 2)
    )
