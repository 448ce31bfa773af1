"""Wrong arguments of the losses are refused in one sentence, good ones cost no more operators."""

import re

import numpy as np
import pytest
import torch

from brloss_d2 import criteria, losses
from brloss_d2.criteria import MatchedMasks, MatchedPredictions
from brloss_d2.losses.base import check_values
from tests.helpers.cases import TABLE

LOGITS, QUALITY = torch.tensor([2.0, 1.0, -1.0, 0.5]), torch.tensor([0.9, 0.4])
LABELS = torch.tensor([1, 0, -1, 1])
BOXES = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
ROWS = torch.zeros(2, 3)
RS, GIOU, BALANCER = losses.RankSortLoss(), losses.GIoULoss(), losses.SelfBalancer()

WRONG_TENSORS = {
    "label 2": ({"labels": torch.tensor([1, 0, 2, 1])}, r"labels .* 1 of 4 .* such as 2$"),
    "label 255": (
        {"labels": torch.tensor([1, 0, 255, 1], dtype=torch.uint8)},
        r"-1 \(ignored\); 1 of 4 .* 255$",
    ),
    "label -100": ({"labels": torch.tensor([1, -100, 0, 1])}, r"such as -100$"),
    "float labels": ({"labels": LABELS.float()}, "labels must be integers"),
    "labels of another shape": ({"labels": LABELS[:3]}, r"labels must be integers .* \(3,\)"),
    "labels in a list": (
        {"labels": [1, 0, -1, 1]},
        "labels must be a dense tensor of .* got builtins.list",
    ),
    "labels elsewhere": ({"labels": LABELS.to("meta")}, "labels is on meta, but logits on cpu"),
    "NumPy logits": (
        {"logits": LOGITS.numpy()},
        "logits must be a dense tensor of .* got numpy.ndarray",
    ),
    "integer logits": ({"logits": LABELS}, "logits must be a floating point tensor"),
    "matrix of logits": ({"logits": LOGITS[None]}, "flatten"),
    "value below 0": ({"values": torch.tensor([-0.5, 0.4])}, r"1 of 2 .* such as -0\.5$"),
    "value NaN": ({"values": torch.tensor([0.9, torch.nan])}, r"1 of 2 .* such as nan$"),
    "value infinite": ({"values": torch.tensor([torch.inf, 0.4])}, r"1 of 2 .* such as inf$"),
    "no logits": ({"logits": None}, "logits must be a dense tensor .* got builtins.NoneType"),
    "sparse labels": ({"labels": LABELS.to_sparse()}, "labels must be a dense tensor"),
    "16 bits without sign": ({"labels": LABELS.to(torch.uint16)}, "labels must be integers"),
    "complex values": ({"values": QUALITY.cfloat()}, "must be a dense tensor of real numbers"),
    "too many values": ({"values": torch.rand(3)}, "each of the 2 positives"),
    "NumPy values": ({"values": QUALITY.numpy()}, "must be a dense tensor of .* got numpy.ndarray"),
    "a mask of positives": ({"positives": LABELS == 1}, "positives must be int64 positions"),
    "delta of text": ({"delta": "1"}, "delta must be a finite number >= 0, got '1'"),
    "delta True": ({"delta": True}, "delta must be a finite number >= 0, got True"),
    "delta of a tensor": ({"delta": torch.tensor(1.0)}, "delta must be a finite number >= 0"),
    "a process group of torch": ({"group": "world"}, "group must be of type PoolGroup"),
}


@pytest.mark.parametrize("case", WRONG_TENSORS)
@pytest.mark.parametrize("name", TABLE)
def test_ranking_losses_refuse_wrong_arguments(name, case):
    changed, expected = WRONG_TENSORS[case]
    given = {"logits": LOGITS, "labels": LABELS, "values": QUALITY, **changed}
    with pytest.raises(ValueError, match=expected) as caught:
        TABLE[name].function(given.pop("logits"), given.pop("labels"), given.pop("values"), **given)
    assert "\n" not in str(caught.value)


def test_quality_has_an_upper_bound_and_errors_have_none():
    values = torch.tensor([1.5, 0.4])
    with pytest.raises(ValueError, match=r"quality must be in \[0, 1\].*such as 1\.5$"):
        losses.rank_sort_loss(LOGITS, LABELS, values)
    assert losses.alrp_loss(LOGITS, LABELS, values)["loss_box"] > 0


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int32])
@pytest.mark.parametrize("name", TABLE)
def test_labels_of_any_integer_type_are_read_alike(name, dtype):
    labels = torch.tensor([1, 0, 0, 1])
    expected = TABLE[name].function(LOGITS, labels, QUALITY)
    assert TABLE[name].function(LOGITS, labels.to(dtype), QUALITY) == expected


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: losses.SigmoidFocalLoss(alpha=1.5), "alpha must be a finite number in [0, 1]"),
        (lambda: losses.SigmoidFocalLoss(gamma=-1), "gamma must be a finite number >= 0, got -1"),
        (lambda: losses.QualityFocalLoss(beta=float("nan")), "beta must be a finite number >= 0"),
        (lambda: losses.VarifocalLoss(alpha="0.75"), "alpha must be a finite number >= 0"),
        (lambda: losses.MatchabilityAwareLoss(gamma=-1), "gamma must be a finite number >= 0"),
        (lambda: losses.SmoothL1Loss(beta=-0.1), "beta must be a finite number >= 0, got -0.1"),
        (lambda: losses.DiceLoss(eps=None), "eps must be a finite number > 0, got None"),
        (lambda: losses.ConstantBalancer(-2.0), "weight must be a finite number >= 0, got -2.0"),
        (lambda: losses.APLoss(delta=-1.0), "delta must be a finite number >= 0, got -1.0"),
        (lambda: losses.EpochSelfBalancer(pools_per_epoch=0), "pools_per_epoch must be a"),
        (
            lambda: criteria.RankingCriterion(GIOU, RS, BALANCER),
            "cls_loss must be of type RankingLoss, got GIoULoss()",
        ),
        (
            lambda: criteria.RankingCriterion(RS, BALANCER, GIOU),
            "balancer must be of type Balancer, got GIoULoss()",
        ),
        (
            lambda: criteria.RankingCriterion(RS, {"loss_l1": RS}, BALANCER),
            "box_loss (loss_l1) must be of type BoxLoss, got RankSortLoss(delta=0.5)",
        ),
        (
            lambda: criteria.SigmoidCriterion(RS, GIOU),
            "cls_loss must be of type ScoreLoss, got RankSortLoss(delta=0.5)",
        ),
        (lambda: criteria.SoftmaxCriterion(RS), "box_loss must be of type BoxLoss"),
        (lambda: criteria.ALRPCriterion(RS, GIOU, BALANCER), "cls_loss must be of type ALRPLoss"),
        (lambda: criteria.MaskCriterion(GIOU, BALANCER), "mask_loss must be of type MaskLoss"),
        (lambda: criteria.QualityBranch(GIOU), "target must be of type PositiveQuality"),
        (
            lambda: criteria.RankingCriterion(RS, GIOU, BALANCER, cls_weights={"loss_rank": -1}),
            "loss_rank must be a finite number >= 0, got -1",
        ),
        (
            lambda: MatchedPredictions(ROWS, torch.tensor([0, 4]), BOXES, BOXES, num_classes=3),
            "labels must be a class of 0..2, 3 (background) or -1 (ignored); 1 of 2 values are not",
        ),
        (
            lambda: MatchedPredictions(torch.tensor([0, 4]), ROWS, BOXES, BOXES, num_classes=3),
            "logits must be (R, 3) or (R, 4)",
        ),
        (
            lambda: MatchedPredictions(ROWS, torch.tensor([0.0, 3]), BOXES, BOXES, num_classes=3),
            "labels must be (2,), one integer for each row of logits, got torch.float32 (2,)",
        ),
        (
            lambda: MatchedMasks(
                torch.zeros(2, 4, 4), torch.zeros(2, 4, 4), *QUALITY[:, None], [2]
            ),
            "one entry for each of the 2 masks, got [1, 2]",
        ),
        (
            lambda: MatchedPredictions(
                ROWS, torch.tensor([0, 3]), BOXES, BOXES, num_classes=3, pred_deltas=ROWS
            ),
            "expected one entry for each of the 1 boxes, got {'pred_deltas': 2}",
        ),
        (
            lambda: MatchedPredictions(
                ROWS, torch.tensor([0, 3]), BOXES, BOXES, num_classes=3, rows_per_image=[3, -1]
            ),
            "rows_per_image must be counts that add up to 2 rows, got [3, -1]",
        ),
        (
            lambda: criteria.RankingCriterion(RS, GIOU, BALANCER, images_per_pool="4"),
            "images_per_pool must be of type int, got '4'",
        ),
        (
            lambda: criteria.SigmoidCriterion(losses.SigmoidFocalLoss(), GIOU, quality=GIOU),
            "quality must be of type QualityBranch, got GIoULoss()",
        ),
        (lambda: losses.rank_sort_loss(LOGITS, LABELS, None), "quality must be a dense tensor"),
        (
            lambda: losses.SmoothL1Loss()(BOXES, BOXES.expand(2, 4)),
            "expected two (P, 4) box tensors, got (1, 4), (2, 4)",
        ),
        (
            lambda: losses.paired_box_iou(BOXES, np.zeros((1, 4))),
            "b must be a dense tensor of real numbers, got numpy.ndarray",
        ),
        (
            lambda: losses.dice_loss(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 255.0)),
            "targets must be in [0, 1]; 4 of 4 values are not, such as 255",
        ),
    ],
)
def test_numbers_parts_and_targets_are_checked(make, expected):
    with pytest.raises(ValueError, match=re.escape(expected)) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (torch.tensor([1.0, -1.0]), r"targets must be in \[0, 1\]; 1 of 2 .* such as -1$"),
        (torch.tensor([1, 0]), "must be floating point"),
        (torch.tensor([1.0, 0.0, 0.0]), r"must have the shape of logits \(2,\)"),
        ([1.0, 0.0], "targets must be a dense tensor of .* got builtins.list"),
    ],
)
@pytest.mark.parametrize("name", ["BinaryCrossEntropyLoss", "MatchabilityAwareLoss"])
def test_score_losses_refuse_wrong_targets(name, targets, expected):
    with pytest.raises(ValueError, match=expected):
        getattr(losses, name)()(torch.zeros(2), targets)


class CountedOperators(torch.utils._python_dispatch.TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_trusted_positives_are_not_checked():
    """The path of the criteria, in which NaN boxes have to reach the check of the losses."""
    positives = torch.tensor([0, 3])
    with CountedOperators() as count:
        losses.rank_sort_loss(LOGITS, LABELS, QUALITY * torch.nan, positives=positives)
    assert not any(name.startswith("aminmax") for name in count.names)


def test_huge_logit_of_a_negative_has_no_huge_gradient():
    logits = torch.tensor([0.3, -0.2, 0.1, 1e30], requires_grad=True)
    losses.ap_loss(logits, torch.tensor([1, 1, 0, 0]))["loss_rank"].backward()
    assert logits.grad.abs().max() < 1


def test_compiled_code_checks_no_values():
    def doubled(x):
        check_values("x", x, 0.0, 1.0, "in [0, 1]")
        return 2 * x

    compiled = torch.compile(doubled, backend="eager", fullgraph=True)
    assert compiled(torch.tensor([5.0])).tolist() == [10.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_good_arguments_pass_the_asynchronous_check_of_a_gpu():
    arguments = [x.cuda() for x in (LOGITS, LABELS, QUALITY)]
    expected = losses.rank_sort_loss(LOGITS, LABELS, QUALITY)
    for name, value in losses.rank_sort_loss(*arguments).items():
        torch.testing.assert_close(value.cpu(), expected[name])
    torch.cuda.synchronize()
