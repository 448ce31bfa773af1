"""One-to-one matching against brute force, and its edge cases."""

from itertools import permutations

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torchvision.ops import generalized_box_iou, sigmoid_focal_loss

from brloss_d2.projects.co_detr.modeling.boxes import pixel_boxes, relative_boxes
from brloss_d2.projects.co_detr.modeling.hungarian import HungarianMatcher, _candidates

SIZE = (60, 100)
MATCHER = HungarianMatcher()


def problem(queries: int, objects: int, seed: int = 0, classes: int = 3):
    """Logits, boxes, objects and their classes."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(queries, classes, generator=generator)
    boxes = torch.rand(queries, 4, generator=generator) * 0.5 + 0.1
    gt_boxes = pixel_boxes(torch.rand(objects, 4, generator=generator) * 0.5 + 0.1, SIZE)
    return logits, boxes, gt_boxes, torch.randint(classes, (objects,), generator=generator)


def total(cost: torch.Tensor, matched: torch.Tensor) -> float:
    rows = (matched >= 0).nonzero().flatten()
    return cost[rows, matched[rows]].sum().item()


def test_cost():
    """Focal loss, L1 and GIoU are those of torch and torchvision."""
    logits, boxes, gt_boxes, classes = problem(7, 4)
    cost = HungarianMatcher(cls_weight=4.0, l1_weight=3.0, giou_weight=0.5).cost(
        logits, boxes, gt_boxes, classes, SIZE
    )
    chosen = logits[:, classes]
    focal = [sigmoid_focal_loss(chosen, torch.full_like(chosen, t)) for t in (1.0, 0.0)]
    l1 = (boxes[:, None] - relative_boxes(gt_boxes, SIZE)).abs().sum(-1)
    giou = generalized_box_iou(pixel_boxes(boxes, SIZE), gt_boxes)
    expected = 4 * (focal[0] - focal[1]) + 3 * l1 - 0.5 * giou
    torch.testing.assert_close(cost, expected, rtol=1e-5, atol=1e-5)


def test_scores_are_lowered_by_the_place_of_a_box():
    logits, boxes, gt_boxes, classes = problem(7, 4)
    matcher = HungarianMatcher(l1_weight=0.0, giou_weight=0.0, position_power=0.5)
    found = matcher.cost(logits, boxes, gt_boxes, classes, SIZE)
    place = (generalized_box_iou(pixel_boxes(boxes, SIZE), gt_boxes) + 1) / 2
    scores = logits[:, classes].sigmoid() * (place / place.max()).sqrt()
    chosen = scores.logit()
    focal = [sigmoid_focal_loss(chosen, torch.full_like(chosen, t)) for t in (1.0, 0.0)]
    torch.testing.assert_close(found, 2 * (focal[0] - focal[1]), rtol=1e-4, atol=1e-4)
    boxes[0] = torch.nan
    assert matcher.cost(logits, boxes, gt_boxes, classes, SIZE).isfinite().all()
    assert matcher(logits[:0], boxes[:0], gt_boxes, classes, SIZE).shape == (0,)


@pytest.mark.parametrize(("queries", "objects"), [(6, 1), (6, 3), (6, 6), (5, 2), (3, 6)])
@pytest.mark.parametrize("seed", range(4))
def test_brute_force(queries, objects, seed):
    case = problem(queries, objects, seed)
    cost, matched = MATCHER.cost(*case, SIZE), MATCHER(*case, SIZE)
    used = matched[matched >= 0]
    assert len(used) == len(used.unique()) == min(queries, objects)
    wide = cost if queries >= objects else cost.T
    best = min(
        sum(wide[row, column].item() for column, row in enumerate(rows))
        for rows in permutations(range(len(wide)), wide.shape[1])
    )
    assert total(cost, matched) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_fewer_rows_same_matching(seed):
    case = problem(200, 1 + 2 * seed, seed)
    cost, matched = MATCHER.cost(*case, SIZE), MATCHER(*case, SIZE)
    rows, objects = linear_sum_assignment(cost)
    assert torch.equal(matched[torch.from_numpy(rows)], torch.from_numpy(objects))
    assert (matched >= 0).sum() == len(rows)


def test_few_rows_go_to_the_solver():
    cost = MATCHER.cost(*problem(500, 4), SIZE)
    rows = _candidates(cost)
    assert len(rows) <= 16 and torch.equal(rows, rows.sort().values)


def test_objects_that_compete_for_the_same_rows():
    """Identical objects: each is matched with one of the best rows, no row twice."""
    logits, boxes, gt_boxes, classes = problem(50, 1)
    case = (logits, boxes, gt_boxes.repeat(5, 1), classes.repeat(5))
    matched = MATCHER(*case, SIZE)
    best = MATCHER.cost(*case, SIZE)[:, 0].argsort()[:5]
    assert torch.equal((matched >= 0).nonzero().flatten(), best.sort().values)
    assert matched[best].sort().values.tolist() == [0, 1, 2, 3, 4]


def test_order_of_queries_and_objects():
    logits, boxes, gt_boxes, classes = problem(40, 7)
    matched = MATCHER(logits, boxes, gt_boxes, classes, SIZE)
    generator = torch.Generator().manual_seed(1)
    rows, objects = (torch.randperm(n, generator=generator) for n in (40, 7))
    moved = MATCHER(logits[rows], boxes[rows], gt_boxes[objects], classes[objects], SIZE)
    # Position 7 stands for -1.
    old = torch.cat([objects, torch.tensor([-1])])[moved]
    assert torch.equal(old, matched[rows])


def test_no_objects_and_no_queries():
    logits, boxes, gt_boxes, classes = problem(4, 2)
    matched = MATCHER(logits, boxes, gt_boxes[:0], classes[:0], SIZE)
    assert matched.dtype == torch.int64 and matched.tolist() == [-1] * 4
    assert MATCHER(logits[:0], boxes[:0], gt_boxes, classes, SIZE).shape == (0,)


def test_boxes_without_area():
    logits, boxes, gt_boxes, classes = problem(5, 2)
    boxes[:, 2:] = 0
    gt_boxes[:, 2:] = gt_boxes[:, :2]
    cost = MATCHER.cost(logits, boxes, gt_boxes, classes, SIZE)
    assert cost.isfinite().all() and cost.abs().max() < 100


def test_predictions_that_are_not_numbers_come_last():
    logits, boxes, gt_boxes, classes = problem(6, 3)
    boxes[:2], logits[2] = torch.nan, torch.nan
    expected = MATCHER(logits[3:], boxes[3:], gt_boxes, classes, SIZE)
    assert torch.equal(MATCHER(logits, boxes, gt_boxes, classes, SIZE)[3:], expected)
    everything = MATCHER(logits * torch.nan, boxes, gt_boxes, classes, SIZE)
    assert (everything >= 0).sum() == 3


def test_half_precision_is_matched_in_single():
    logits, boxes, gt_boxes, classes = problem(30, 5)
    half = MATCHER(logits.half(), boxes.half(), gt_boxes, classes, SIZE)
    single = MATCHER(logits.half().float(), boxes.half().float(), gt_boxes, classes, SIZE)
    assert torch.equal(half, single)


def test_no_gradient_is_kept():
    logits, boxes, gt_boxes, classes = problem(4, 2)
    matched = MATCHER(logits.requires_grad_(), boxes.requires_grad_(), gt_boxes, classes, SIZE)
    assert not matched.requires_grad
