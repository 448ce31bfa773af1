"""Targets and losses that look at score and box together: golden cases, extremes, empty input."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from brloss_d2.criteria import (
    MatchedPredictions,
    PredictedIoU,
    RankingCriterion,
    RelativeIoU,
    ScoreAndIoU,
    SigmoidCriterion,
    TaskAlignment,
)
from brloss_d2.losses import (
    BinaryCrossEntropyLoss,
    CorrelationLoss,
    GIoULoss,
    IABCELoss,
    PositionSupervisedLoss,
    QualityFocalLoss,
    RankSortLoss,
    SelfBalancer,
    SigmoidFocalLoss,
)
from tests.helpers.batches import random_batch

GOLDEN = Path(__file__).parents[1] / "golden" / "quality_aware_losses.npz"
CASES = (
    *("plain", "more", "many_to_one", "disjoint", "perfect", "one_positive", "no_positives"),
    *("one_image_empty", "confident", "initial", "extreme", "equal_scores"),
)
BY_TARGET = {
    "ia_bce": (IABCELoss(), ScoreAndIoU()),
    "ia_bce_tau1.5": (IABCELoss(), ScoreAndIoU(tau=1.5)),
    "psl_stable_dino": (PositionSupervisedLoss(), RelativeIoU()),
    "tal_focal": (QualityFocalLoss(beta=2.0), TaskAlignment()),
    "tal_bce": (BinaryCrossEntropyLoss(), TaskAlignment()),
}
BY_CORRELATION = ("corr_pearson", "corr_concordance")
DTYPES = {torch.float64: 1e-9, torch.float32: 1e-5}


@cache
def golden() -> dict[str, Tensor]:
    z = np.load(GOLDEN)
    return {name: torch.from_numpy(z[name]) for name in z.files}


def corners(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def matched_case(name: str, dtype: torch.dtype) -> MatchedPredictions:
    """Read the input of a case, with logits in a precision and boxes relative to the image.

    The boxes are in float64, because float32 would round their corners.
    """
    z = {key: golden()[f"{name}/in/{key}"] for key in ("logits", "labels", "image")}
    num_classes = z["logits"].shape[1]
    positive = z["labels"] < num_classes
    boxes = [
        corners(golden()[f"{name}/in/{key}_cxcywh"][positive].double()) for key in ("pred", "gt")
    ]
    return MatchedPredictions(
        z["logits"].to(dtype).requires_grad_(),
        z["labels"].long(),
        *boxes,
        num_classes,
        rows_per_image=z["image"].bincount().tolist(),
    )


def compare(value: Tensor, logits: Tensor, key: str, tolerance: float) -> None:
    expected = {k: golden()[f"{key}/{k}"].double() for k in ("value", "grad")}
    (gradient,) = torch.autograd.grad(value, logits)
    scale = max(1.0, abs(expected["value"].item()))
    assert abs(value.item() - expected["value"].item()) <= tolerance * scale, key
    scale = expected["grad"].abs().max().item() or 1.0
    assert (gradient.double() - expected["grad"]).abs().max() <= tolerance * scale, key


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BY_TARGET)
def test_golden_losses_with_soft_targets(name, dtype):
    cls_loss, target = BY_TARGET[name]
    criterion = SigmoidCriterion(cls_loss, GIoULoss(), target=target)
    for case in CASES:
        matched = matched_case(case, dtype)
        count = max(1, len(matched.foreground))
        value = criterion(matched).losses["loss_cls"] * count
        compare(value, matched.logits, f"{case}/{name}", DTYPES[dtype])
        expected = golden().get(f"{case}/{name}/target")
        if expected is not None:
            difference = target(matched).double() - expected
            assert (difference.abs() <= DTYPES[dtype]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BY_CORRELATION)
def test_golden_correlations(name, dtype):
    loss = CorrelationLoss(kind=name.removeprefix("corr_"), weight=1.0)
    criterion = SigmoidCriterion(SigmoidFocalLoss(), GIoULoss(), correlation=loss)
    for case in CASES:
        matched = matched_case(case, dtype)
        value = criterion(matched).losses["loss_corr"]
        compare(value, matched.logits, f"{case}/{name}", DTYPES[dtype])


PARTS = {
    **{name: dict(cls_loss=loss, target=target) for name, (loss, target) in BY_TARGET.items()},
    "tal": dict(
        cls_loss=QualityFocalLoss(),
        target=TaskAlignment(),
        normalizer="targets",
        box_weighting=TaskAlignment(),
    ),
    **{
        kind: dict(cls_loss=SigmoidFocalLoss(), correlation=CorrelationLoss(kind=kind))
        for kind in ("concordance", "pearson")
    },
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", PARTS)
def test_extreme_logits_are_finite(name, dtype):
    matched = random_batch([0, 3, 1, 2, -1, 0, 1, 3])
    signs = torch.randn(matched.logits.shape, generator=torch.Generator().manual_seed(0)).sign()
    logits = (40 * signs).to(dtype).requires_grad_()
    output = SigmoidCriterion(box_loss=GIoULoss(), **PARTS[name])(replace(matched, logits=logits))
    sum(output.losses.values()).backward()
    assert all(x.isfinite() for x in output.losses.values())
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("labels", [[3] * 4, [-1] * 4, [], [3, 0, 3, 3]])
def test_little_or_nothing_to_learn(name, labels):
    matched = replace(random_batch(labels), rows_per_image=[len(labels), 0])
    criterion = SigmoidCriterion(box_loss=GIoULoss(), **PARTS[name])
    output = criterion(matched)
    assert output.losses.keys() == criterion(random_batch([0, 1, 3])).losses.keys()
    gradients = torch.autograd.grad(sum(output.losses.values()), matched.logits)
    assert all(x.isfinite().all() for x in (*output.losses.values(), *gradients))
    if "loss_corr" in output.losses:
        assert output.losses["loss_corr"] == 0


def test_targets_divide_both_losses_of_task_alignment():
    matched = random_batch([0, 3, 1, 2, 3])
    parts = dict(PARTS["tal"], box_loss=GIoULoss(), box_weight=2.0)
    found = SigmoidCriterion(**parts)(matched).losses
    targets = TaskAlignment()(matched)
    assert targets.sum() < 3
    plain = SigmoidCriterion(**{**parts, "normalizer": "positives"})(matched).losses
    torch.testing.assert_close(found["loss_cls"], plain["loss_cls"] * 3 / targets.sum())
    errors = GIoULoss()(matched.pred_boxes, matched.gt_boxes)
    expected = 2 * (errors * targets).sum() / targets.sum()
    torch.testing.assert_close(found["loss_box_reg"], expected)


def test_a_row_learns_from_the_best_of_its_own_object_and_image():
    matched = random_batch([0, 0, 0, 1, 3, 0])
    gt = matched.gt_boxes[[0, 0, 2, 3, 4]]  # two rows of one object, then three objects
    matched = replace(matched, gt_boxes=gt, pred_boxes=gt + 1, rows_per_image=[3, 3])
    assert matched.images.tolist() == [0, 0, 0, 1, 1]
    same = matched.objects[:, None] == matched.objects
    assert same.sum() == 7
    assert same[0, 1]
    best = [RelativeIoU()(matched)[rows].max() for rows in (slice(0, 3), slice(3, 5))]
    torch.testing.assert_close(best, [torch.tensor(1.0)] * 2)


def test_a_correlation_adds_to_a_ranking_loss_without_balancing():
    matched = random_batch([0, 3, 1, 2, 3, 0])
    parts = (RankSortLoss(), GIoULoss(), SelfBalancer())
    plain = RankingCriterion(*parts)(matched)
    with_term = RankingCriterion(*parts, correlation=CorrelationLoss(weight=0.5))(matched)
    assert with_term.cls_total == plain.cls_total
    loss = with_term.losses.pop("loss_corr")
    torch.testing.assert_close(with_term.losses, plain.losses, rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(loss, matched.logits)
    assert (gradient != 0).sum() == 4  # own classes alone


def test_concordance_draws_scores_to_the_iou_and_pearson_to_any_rising_line():
    iou = torch.tensor([0.2, 0.5, 0.9])
    for scores, expected in ((iou, (0.0, 0.0)), (iou / 2, (None, 0.0))):
        for kind, value in zip(("concordance", "pearson"), expected, strict=True):
            loss = CorrelationLoss(kind=kind, weight=1.0)(scores, iou)
            assert loss > 0.1 if value is None else abs(loss) < 1e-6


@pytest.mark.parametrize("kind", ["concordance", "pearson"])
def test_groups_are_correlated_one_by_one(kind):
    """The mean over groups of at least two positives; one of equal scores has the loss 0."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(9, generator=g, dtype=torch.float64)
    logits[-2:] = 0.5
    logits.requires_grad_()
    iou = torch.rand(9, generator=g, dtype=torch.float64)
    groups = torch.tensor([0, 1, 0, 2, 1, 0, 1, 3, 3])
    loss = CorrelationLoss(kind=kind, weight=1.0)
    found = loss(logits.sigmoid(), iou, groups)
    parts = [loss(logits[groups == i].sigmoid(), iou[groups == i]) for i in (0, 1)]
    torch.testing.assert_close(found, sum(parts) / 3)
    gradients = [torch.autograd.grad(x, logits)[0] for x in (found, sum(parts) / 3)]
    torch.testing.assert_close(*gradients)


def test_a_correlation_per_image_or_level():
    matched = random_batch([0, 1, 3, 2, 0, 1, 2, 3])
    matched = replace(matched, rows_per_image=[4, 4], levels=torch.tensor([4, 4, 1, 1, 1, 4]))
    iou = PredictedIoU()(matched)
    for per, groups in (("image", [0, 0, 0, 1, 1, 1]), ("level", [1, 1, 0, 0, 0, 1])):
        loss = CorrelationLoss(per=per)
        criterion = SigmoidCriterion(SigmoidFocalLoss(), GIoULoss(), correlation=loss)
        expected = loss(matched.positive_scores, iou, torch.tensor(groups))
        assert expected != CorrelationLoss()(matched.positive_scores, iou)
        torch.testing.assert_close(criterion(matched).losses["loss_corr"], expected)
        (first, _) = matched.split(images_per_pool=1)
        assert first.levels.tolist() == [4, 4, 1]


def test_the_last_of_many_rows_of_an_object_stays_a_positive():
    rows = 300
    boxes = torch.tensor([[0.0, 0, 8, 8]]).expand(rows, 4)
    matched = replace(random_batch([0] * rows), pred_boxes=boxes, gt_boxes=boxes)
    assert ScoreAndIoU(tau=1.5)(matched).min() > 0


def test_a_diverged_network_shows():
    for count in (1, 3):
        scores = torch.full((count,), torch.nan)
        assert CorrelationLoss()(scores, torch.linspace(0.1, 0.9, count)).isnan()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CorrelationLoss(kind="spearman"), r"one of \('concordance', 'pearson'\), got 'sp"),
        (lambda: CorrelationLoss(weight=-1), "weight must be a finite number >= 0"),
        (lambda: CorrelationLoss(per="stage"), r"per must be one of \('pool', 'image', 'level'\)"),
        (lambda: CorrelationLoss()(torch.rand(2), torch.rand(3)), r"all be \(P,\)"),
        (
            lambda: SigmoidCriterion(
                SigmoidFocalLoss(), GIoULoss(), correlation=CorrelationLoss(per="level")
            )(replace(random_batch([0]), levels=None)),
            "needs `levels`",
        ),
        (lambda: ScoreAndIoU(alpha=2), r"alpha must be a finite number in \[0, 1\]"),
        (lambda: ScoreAndIoU(tau=0), "tau must be a finite number > 0"),
        (lambda: RelativeIoU(power=0), "power must be a finite number > 0"),
        (lambda: TaskAlignment(beta=-1), "beta must be a finite number >= 0"),
        (lambda: IABCELoss(gamma=-1), "gamma must be a finite number >= 0"),
        (lambda: PositionSupervisedLoss(alpha=2), "alpha must be a finite number in"),
        (
            lambda: SigmoidCriterion(IABCELoss(), GIoULoss(), target=GIoULoss()),
            "target must be of type PositiveQuality",
        ),
        (
            lambda: SigmoidCriterion(IABCELoss(), GIoULoss(), correlation=GIoULoss()),
            "correlation must be of type CorrelationLoss",
        ),
        (
            lambda: RankingCriterion(
                RankSortLoss(), GIoULoss(), SelfBalancer(), correlation=GIoULoss()
            ),
            "correlation must be of type CorrelationLoss",
        ),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
