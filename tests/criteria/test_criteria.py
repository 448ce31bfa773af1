"""Every criterion on every kind of batch, and what each computes on a batch done by hand."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from brloss_d2.criteria import (
    ALRPCriterion,
    Criterion,
    MatchedPredictions,
    RankingCriterion,
    SigmoidCriterion,
    SoftmaxCriterion,
)
from brloss_d2.errors import InputError
from brloss_d2.losses import (
    ALRPLoss,
    BinaryCrossEntropyLoss,
    ConstantBalancer,
    EpochSelfBalancer,
    GIoULoss,
    RankSortLoss,
    SelfBalancer,
    SmoothL1Loss,
    paired_box_iou,
    rank_sort_loss,
)
from tests.helpers.batches import CLASSES
from tests.helpers.batches import random_batch as batch
from tests.helpers.criteria import ONE_STAGE_CRITERIA, RCNN_CRITERIA, build_criterion

# One image done by hand with the published functions: the box head of RS and BRS Loss.
LOGITS = [[0.6, -0.2, 0.1], [-0.3, 0.2, 0.4], [0, -0.1, 0.3], [0.5, 0.05, -0.4], [0.2, 0.35, -0.6]]
LABELS = [0, 2, 1, 3, 3]
QUALITY = (0.803008, 0.840545, 0.837079)
BOX_ERRORS = (0.205922, 0.160829, 0.164295)
WEIGHTS = (0.645656, 0.598688, 0.574443)


class StoredBoxLoss(GIoULoss):
    """Returns what is stored, attached to the predictions."""

    def forward(self, pred, target):
        return torch.tensor(BOX_ERRORS) + 0 * pred.sum()


def step(criterion: Criterion, matched: MatchedPredictions):
    output = criterion(matched)
    leaves = (matched.logits, matched.pred_deltas)
    return output, torch.autograd.grad(sum(output.losses.values()), leaves)


@pytest.mark.parametrize(
    ("site", "name"),
    [
        *product(("rpn", "roi"), RCNN_CRITERIA),
        *product(("atss", "retinanet"), ONE_STAGE_CRITERIA),
    ],
)
class TestEveryCriterion:
    @pytest.mark.parametrize(
        "labels", [[0, 3, 1, 3, -1, 2, 2], [3, 3, 3], [-1, -1], [0, 1], [3, 0, 3, 3], []], ids=str
    )
    def test_finite_attached_and_of_the_same_names(self, site, name, labels):
        """With an image of one row at the end."""
        criterion = build_criterion(name, site, pools_per_epoch=10)
        columns = criterion.num_logits(CLASSES)
        names = criterion(batch([0, 3], columns=columns)).losses.keys()
        last = min(1, len(labels))
        matched = replace(batch(labels, columns=columns), rows_per_image=[len(labels) - last, last])
        output, gradients = step(criterion, matched)
        assert output.losses.keys() == names
        for value in (*output.losses.values(), output.cls_total):
            assert value.shape == ()
            assert value.isfinite()
        assert all(g.isfinite().all() for g in gradients)
        assert len(output.box_weights) == sum(0 <= x < CLASSES for x in labels)
        assert not output.box_weights.requires_grad
        assert not output.cls_total.requires_grad

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_extreme_logits_are_finite(self, site, name, dtype):
        criterion = build_criterion(name, site, pools_per_epoch=10)
        matched = batch([0, 3, 1, 2, -1, 0, 1, 3], columns=criterion.num_logits(CLASSES))
        logits = (40 * matched.logits.detach().sign()).to(dtype).requires_grad_()
        output, gradients = step(criterion, replace(matched, logits=logits))
        assert all(x.isfinite().all() for x in (*output.losses.values(), *gradients))
        assert gradients[0].dtype == dtype

    def test_learns(self, site, name):
        criterion = build_criterion(name, site, pools_per_epoch=10)
        matched = batch([0, 3, 1, 3, -1], columns=criterion.num_logits(CLASSES))
        _, (logits, deltas) = step(criterion, matched)
        assert logits[0, 0] < 0
        assert logits[4].abs().max() == 0  # ignored
        assert deltas.abs().max() > 0

    def test_probabilities(self, site, name):
        criterion = build_criterion(name, site, pools_per_epoch=10)
        logits = torch.randn(6, criterion.num_logits(CLASSES))
        probs = criterion.predict_probs(logits)
        assert probs.shape == (6, CLASSES)
        assert ((probs > 0) & (probs < 1)).all()

    def test_half_precision_logits(self, site, name):
        criterion = build_criterion(name, site, pools_per_epoch=10)
        matched = batch([0, 3, 1, 3, -1], columns=criterion.num_logits(CLASSES))
        half = MatchedPredictions(**{**vars(matched), "logits": matched.logits.bfloat16()})
        total = sum(criterion(half).losses.values())
        assert total.dtype == torch.float32
        expected = build_criterion(name, site, pools_per_epoch=10)(matched).losses
        torch.testing.assert_close(total, sum(expected.values()), rtol=0.05, atol=0.05)


def test_unknown_name():
    with pytest.raises(InputError, match="no criterion 'lovasz'"):
        build_criterion("lovasz", "roi", pools_per_epoch=1)


def hand_batch() -> MatchedPredictions:
    boxes = torch.zeros(3, 4, requires_grad=True)
    logits = torch.tensor(LOGITS, requires_grad=True)
    quality = torch.tensor(QUALITY)
    return MatchedPredictions(logits, torch.tensor(LABELS), boxes, boxes, CLASSES, quality=quality)


@pytest.mark.parametrize(
    ("name", "rank", "balance"), [("rs", 0.662714, 3.792824), ("brs", 0.649995, 3.721344)]
)
def test_box_head_done_with_the_published_functions(name, rank, balance):
    criterion = build_criterion(name, "roi", pools_per_epoch=1)
    criterion.box_losses["loss_box_reg"] = StoredBoxLoss()
    output = criterion(hand_batch())
    torch.testing.assert_close(output.losses["loss_rank"].item(), rank, rtol=0, atol=1e-6)
    torch.testing.assert_close(output.losses["loss_sort"].item(), 0.012150, rtol=0, atol=1e-6)
    torch.testing.assert_close(output.box_weights, torch.tensor(WEIGHTS), rtol=0, atol=1e-6)
    box = output.losses["loss_box_reg"].item()
    torch.testing.assert_close(box, rank + 0.012150, rtol=0, atol=2e-6)
    unbalanced = output.metrics()["box_reg_unbalanced"].item()
    torch.testing.assert_close(box / unbalanced, balance, rtol=1e-5, atol=0)


def test_ranking_pool_is_all_rows_and_classes():
    matched = batch([0, 3, 1, -1, 2, 3])
    output = RankingCriterion(RankSortLoss(), GIoULoss(), SelfBalancer())(matched)
    labels = torch.zeros(6, CLASSES, dtype=torch.long)
    labels[0, 0] = labels[2, 1] = labels[4, 2] = 1
    labels[3] = -1
    quality = paired_box_iou(matched.pred_boxes, matched.gt_boxes)
    expected = rank_sort_loss(matched.logits.flatten(), labels.flatten(), quality)
    assert output.losses["loss_rank"] == expected["loss_rank"]
    assert output.losses["loss_sort"] == expected["loss_sort"]


def test_equal_box_weights_on_request():
    matched = batch([0, 3, 1])
    criterion = RankingCriterion(
        RankSortLoss(), GIoULoss(), ConstantBalancer(2.0), score_weighted=False
    )
    expected = 2 * GIoULoss()(matched.pred_boxes, matched.gt_boxes).mean()
    torch.testing.assert_close(criterion(matched).losses["loss_box_reg"], expected)


def test_softmax_criterion_is_the_fast_rcnn_loss():
    matched = batch([0, 3, 1, 3], columns=CLASSES + 1)
    losses = SoftmaxCriterion(SmoothL1Loss())(matched).losses
    expected = torch.nn.functional.cross_entropy(matched.logits, matched.labels)
    torch.testing.assert_close(losses["loss_cls"], expected)
    torch.testing.assert_close(losses["loss_box_reg"], matched.pred_deltas.abs().sum() / 4)


@pytest.mark.parametrize(("normalizer", "count"), [("rows", 4), ("positives", 2)])
def test_normalizer_of_the_sigmoid_criterion(normalizer, count):
    matched = batch([0, 3, 1, 3, -1])
    losses = SigmoidCriterion(
        BinaryCrossEntropyLoss(), SmoothL1Loss(), box_weight=2.0, normalizer=normalizer
    )(matched).losses
    torch.testing.assert_close(losses["loss_box_reg"], 2 * matched.pred_deltas.abs().sum() / count)
    targets = torch.zeros(4, CLASSES)
    targets[0, 0] = targets[2, 1] = 1
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        matched.logits[:4], targets, reduction="sum"
    )
    torch.testing.assert_close(losses["loss_cls"], expected / count)


def test_wrong_shapes():
    boxes = torch.zeros(1, 4)
    with pytest.raises(ValueError, match=r"logits must be \(R, 3\) or \(R, 4\)"):
        MatchedPredictions(torch.zeros(2, 5), torch.zeros(2), boxes, boxes, CLASSES)
    with pytest.raises(ValueError, match=r"labels must be \(2,\)"):
        MatchedPredictions(torch.zeros(2, 3), torch.zeros(3), boxes, boxes, CLASSES)
    with pytest.raises(ValueError, match="pred_boxes and gt_boxes"):
        MatchedPredictions(torch.zeros(2, 3), torch.tensor([0, 3]), boxes, boxes[:, :2], CLASSES)
    with pytest.raises(ValueError, match="normalizer"):
        SigmoidCriterion(BinaryCrossEntropyLoss(), GIoULoss(), normalizer="images")
    matched = MatchedPredictions(torch.zeros(2, 3), torch.tensor([0, 3]), boxes, boxes, CLASSES)
    with pytest.raises(ValueError, match="needs pred_deltas"):
        matched.box_losses(SmoothL1Loss())


def test_several_box_losses_are_balanced_each():
    """The value of each is that of the ranking terms; its gradient, that of the loss alone."""
    matched = batch([0, 3, 1, 3, -1])
    both = {"loss_l1": SmoothL1Loss(), "loss_giou": GIoULoss()}
    criterion = RankingCriterion(RankSortLoss(), both, SelfBalancer(), score_weighted=False)
    output = criterion(matched)
    assert output.losses.keys() == {"loss_rank", "loss_sort", "loss_l1", "loss_giou"}
    for name, box_loss in both.items():
        alone = RankingCriterion(RankSortLoss(), box_loss, SelfBalancer(), score_weighted=False)
        expected = alone(matched).losses["loss_box_reg"]
        assert output.losses[name] == expected
        torch.testing.assert_close(expected.detach(), output.cls_total)
        gradients = [
            torch.autograd.grad(x, matched.pred_deltas, retain_graph=True)[0]
            for x in (output.losses[name], expected)
        ]
        torch.testing.assert_close(*gradients)
        value = matched.box_losses(box_loss).mean()
        assert output.metrics()[f"{name[5:]}_unbalanced"] == value


def test_ranking_and_sorting_may_weigh_differently():
    matched = batch([0, 3, 1, 3, 2])
    plain = RankingCriterion(RankSortLoss(), GIoULoss(), SelfBalancer())(matched)
    weights = {"loss_rank": 2.0, "loss_sort": 0.5}
    criterion = RankingCriterion(RankSortLoss(), GIoULoss(), SelfBalancer(), cls_weights=weights)
    weighted = criterion(matched)
    for name, weight in weights.items():
        gradients = [
            torch.autograd.grad(x.losses[name], matched.logits, retain_graph=True)[0]
            for x in (plain, weighted)
        ]
        assert gradients[0].abs().max() > 0
        torch.testing.assert_close(weight * gradients[0], gradients[1])
    expected = 2 * plain.losses["loss_rank"] + 0.5 * plain.losses["loss_sort"]
    torch.testing.assert_close(weighted.losses["loss_box_reg"], expected, check_dtype=False)


def test_box_losses_may_have_weights_of_their_own():
    matched = replace(batch([0, 3, 1, 3, 2]), pred_deltas=None)
    boxes = {"loss_one": GIoULoss(), "loss_two": GIoULoss()}
    parts = (RankSortLoss(), boxes, ConstantBalancer())
    plain = RankingCriterion(*parts)(matched).losses
    weighted = RankingCriterion(*parts, box_weights={"loss_two": 5.0})(matched)
    assert plain["loss_two"] > 0
    torch.testing.assert_close(weighted.losses["loss_one"], plain["loss_one"])
    torch.testing.assert_close(weighted.losses["loss_two"], 5 * plain["loss_two"])
    assert weighted.metrics()["two_unbalanced"] == plain["loss_two"]
    with pytest.raises(ValueError, match="box_weights names"):
        RankingCriterion(*parts, box_weights={"loss_three": 5.0})


def test_boxes_beside_their_objects_may_count_as_negatives():
    matched = batch([0, 3, 1, 3, 2])
    shifted = matched.pred_boxes + torch.tensor([[0.0], [1000], [0]])
    matched = replace(matched, pred_boxes=shifted)
    kept, dropped = (
        RankingCriterion(RankSortLoss(), GIoULoss(), SelfBalancer(), disjoint_is_negative=x)
        for x in (False, True)
    )
    as_background = replace(
        matched,
        labels=torch.tensor([0, 3, 3, 3, 2]),
        foreground=torch.tensor([0, 4]),
        pred_boxes=shifted[[0, 2]],
        gt_boxes=matched.gt_boxes[[0, 2]],
        **dict.fromkeys(("pred_deltas", "gt_deltas", "references", "quality_logits", "levels")),
    )
    expected = kept(as_background).losses
    for name in ("loss_rank", "loss_sort"):
        assert torch.equal(dropped(matched).losses[name], expected[name])
    assert dropped(matched).losses["loss_rank"] != kept(matched).losses["loss_rank"]
    assert len(dropped(matched).box_weights) == 3

    quality = torch.stack([matched.localization_quality(), torch.tensor([0.0, 0.0, 0.5])])
    found = matched.above_zero(quality)
    assert [rows.tolist() for rows in found] == [[0, 2], [2]]
    assert matched.foreground_counts == [3]


def test_a_balancer_with_a_state_is_not_shared():
    both = {"loss_l1": SmoothL1Loss(), "loss_giou": GIoULoss()}
    with pytest.raises(ValueError, match="EpochSelfBalancer keeps a state"):
        RankingCriterion(RankSortLoss(), both, EpochSelfBalancer(pools_per_epoch=2))


def test_several_box_losses_of_a_score_criterion():
    matched = batch([0, 3, 1, 3, -1])
    criterion = SigmoidCriterion(
        BinaryCrossEntropyLoss(),
        {"loss_l1": SmoothL1Loss(), "loss_giou": GIoULoss()},
        box_weight={"loss_l1": 2.5, "loss_giou": 1.0},
    )
    losses = criterion(matched).losses
    expected = 2.5 * matched.box_losses(SmoothL1Loss()).mean()
    torch.testing.assert_close(losses["loss_l1"], expected)
    torch.testing.assert_close(losses["loss_giou"], matched.box_losses(GIoULoss()).mean())


def test_every_box_loss_needs_a_weight():
    with pytest.raises(ValueError, match="a number for each of \\['loss_l1'\\]"):
        SigmoidCriterion(BinaryCrossEntropyLoss(), {"loss_l1": SmoothL1Loss()}, box_weight=2.0)


def test_foreground_and_boxes_have_to_agree():
    with pytest.raises(ValueError, match="one box for each of the 3 foreground rows, got 2"):
        replace(batch([0, 3, 1]), labels=torch.tensor([0, 1, 1]), foreground=None)


def test_losses_go_with_their_criteria():
    with pytest.raises(ValueError, match="ALRPCriterion"):
        RankingCriterion(ALRPLoss(), GIoULoss(), SelfBalancer())
    with pytest.raises(ValueError, match="cls_loss must be of type ALRPLoss, got RankSortLoss"):
        ALRPCriterion(RankSortLoss(), GIoULoss(), SelfBalancer())
    with pytest.raises(ValueError, match="cls_weights names"):
        misspelled = RankingCriterion(
            RankSortLoss(), GIoULoss(), SelfBalancer(), cls_weights={"loss_rnk": 2.0}
        )
        misspelled(batch([0, 3, 1]))


def test_rows_and_columns_are_checked():
    with pytest.raises(ValueError, match="counts that add up to 3 rows, got"):
        replace(batch([0, 3, 1]), rows_per_image=[1, 1])
    with pytest.raises(ValueError, match="without a background column"):
        batch([0, 3, 1], columns=CLASSES + 1).binary_labels()
