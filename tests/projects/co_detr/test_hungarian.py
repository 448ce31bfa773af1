"""One-to-one matching against brute force, and its edge cases."""

from itertools import permutations
from unittest import mock

import pytest
import torch
from detectron2.structures import Boxes, Instances
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import generalized_box_iou, sigmoid_focal_loss

from brloss_d2.projects.co_detr.modeling import hungarian
from brloss_d2.projects.co_detr.modeling.boxes import image_scales, pixel_boxes, relative_boxes
from brloss_d2.projects.co_detr.modeling.hungarian import HungarianMatcher

SIZE = (60, 100)
SCALE = image_scales([SIZE], torch.empty(0))
MATCHER = HungarianMatcher()


def problem(queries: int, objects: int, seed: int = 0, classes: int = 3):
    """Logits, boxes, objects and their classes."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(queries, classes, generator=generator)
    boxes = torch.rand(queries, 4, generator=generator) * 0.5 + 0.1
    gt_boxes = pixel_boxes(torch.rand(objects, 4, generator=generator) * 0.5 + 0.1, SCALE)
    return logits, boxes, gt_boxes, torch.randint(classes, (objects,), generator=generator)


def image(gt_boxes: Tensor, classes: Tensor, size: tuple[int, int] = SIZE) -> Instances:
    return Instances(size, gt_boxes=Boxes(gt_boxes), gt_classes=classes)


def match(logits: Tensor, boxes: Tensor, *truth: Tensor, matcher=MATCHER) -> Tensor:
    """Match the queries of one layer and one image."""
    return matcher(logits[None, None], boxes[None, None], [image(*truth)])[0, 0]


def cost_of(logits: Tensor, boxes: Tensor, *truth: Tensor, matcher=MATCHER) -> Tensor:
    """Return the costs (Q, G) of one layer and one image."""
    return matcher.cost(logits[None, None], boxes[None, None], [image(*truth)])[0].T


def total(cost: torch.Tensor, matched: torch.Tensor) -> float:
    rows = (matched >= 0).nonzero().flatten()
    return cost[rows, matched[rows]].sum().item()


def test_cost():
    """Focal loss, L1 and GIoU are those of torch and torchvision."""
    logits, boxes, gt_boxes, classes = problem(7, 4)
    matcher = HungarianMatcher(cls_weight=4.0, l1_weight=3.0, giou_weight=0.5)
    cost = cost_of(logits, boxes, gt_boxes, classes, matcher=matcher)
    chosen = logits[:, classes]
    focal = [sigmoid_focal_loss(chosen, torch.full_like(chosen, t)) for t in (1.0, 0.0)]
    l1 = (boxes[:, None] - relative_boxes(gt_boxes, SCALE)).abs().sum(-1)
    giou = generalized_box_iou(pixel_boxes(boxes, SCALE), gt_boxes)
    expected = 4 * (focal[0] - focal[1]) + 3 * l1 - 0.5 * giou
    torch.testing.assert_close(cost, expected, rtol=1e-5, atol=1e-5)


def test_scores_are_lowered_by_the_place_of_a_box():
    logits, boxes, gt_boxes, classes = problem(7, 4)
    matcher = HungarianMatcher(l1_weight=0.0, giou_weight=0.0, position_power=0.5)
    found = cost_of(logits, boxes, gt_boxes, classes, matcher=matcher)
    place = (generalized_box_iou(pixel_boxes(boxes, SCALE), gt_boxes) + 1) / 2
    scores = logits[:, classes].sigmoid() * (place / place.max()).sqrt()
    chosen = scores.logit()
    focal = [sigmoid_focal_loss(chosen, torch.full_like(chosen, t)) for t in (1.0, 0.0)]
    torch.testing.assert_close(found, 2 * (focal[0] - focal[1]), rtol=1e-4, atol=1e-4)
    boxes[0] = torch.nan
    assert cost_of(logits, boxes, gt_boxes, classes, matcher=matcher).isfinite().all()
    assert match(logits[:0], boxes[:0], gt_boxes, classes, matcher=matcher).shape == (0,)


@pytest.mark.parametrize(("queries", "objects"), [(6, 1), (6, 3), (6, 6), (5, 2), (3, 6)])
@pytest.mark.parametrize("seed", range(4))
def test_brute_force(queries, objects, seed):
    case = problem(queries, objects, seed)
    cost, matched = cost_of(*case), match(*case)
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
    cost, matched = cost_of(*case), match(*case)
    rows, objects = linear_sum_assignment(cost)
    assert torch.equal(matched[torch.from_numpy(rows)], torch.from_numpy(objects))
    assert (matched >= 0).sum() == len(rows)


def test_few_queries_go_to_the_solver():
    with mock.patch.object(
        hungarian, "linear_sum_assignment", wraps=linear_sum_assignment
    ) as solve:
        match(*problem(500, 4))
    table = solve.call_args.args[0]
    assert len(table) == 4 and table.shape[1] <= 16


def test_layers_and_images_together_are_matched_as_each_alone():
    counts, sizes = (3, 0, 12, 1), ((60, 100), (50, 50), (80, 90), (100, 60))
    cases = [[problem(10, n, seed=4 * d + i) for i, n in enumerate(counts)] for d in range(2)]
    objects = [image(*x[2:], size=size) for x, size in zip(cases[0], sizes, strict=True)]
    logits, boxes = (
        torch.stack([torch.stack([case[k] for case in layer]) for layer in cases]) for k in (0, 1)
    )
    matcher = HungarianMatcher(position_power=0.5)
    found = matcher(logits, boxes, objects)
    for d in range(2):
        for i, x in enumerate(objects):
            alone = matcher(logits[d : d + 1, i : i + 1], boxes[d : d + 1, i : i + 1], [x])
            assert torch.equal(found[d, i], alone[0, 0])
    assert (found >= 0).sum((0, 2)).tolist() == [6, 0, 20, 2]


def test_objects_that_compete_for_the_same_rows():
    """Identical objects: each is matched with one of the best rows, no row twice."""
    logits, boxes, gt_boxes, classes = problem(50, 1)
    case = (logits, boxes, gt_boxes.repeat(5, 1), classes.repeat(5))
    matched = match(*case)
    best = cost_of(*case)[:, 0].argsort()[:5]
    assert torch.equal((matched >= 0).nonzero().flatten(), best.sort().values)
    assert matched[best].sort().values.tolist() == [0, 1, 2, 3, 4]


def test_order_of_queries_and_objects():
    logits, boxes, gt_boxes, classes = problem(40, 7)
    matched = match(logits, boxes, gt_boxes, classes)
    generator = torch.Generator().manual_seed(1)
    rows, objects = (torch.randperm(n, generator=generator) for n in (40, 7))
    moved = match(logits[rows], boxes[rows], gt_boxes[objects], classes[objects])
    # Position 7 stands for -1.
    old = torch.cat([objects, torch.tensor([-1])])[moved]
    assert torch.equal(old, matched[rows])


def test_no_objects_and_no_queries():
    logits, boxes, gt_boxes, classes = problem(4, 2)
    matched = match(logits, boxes, gt_boxes[:0], classes[:0])
    assert matched.dtype == torch.int64 and matched.tolist() == [-1] * 4
    assert match(logits[:0], boxes[:0], gt_boxes, classes).shape == (0,)


def test_boxes_without_area():
    logits, boxes, gt_boxes, classes = problem(5, 2)
    boxes[:, 2:] = 0
    gt_boxes[:, 2:] = gt_boxes[:, :2]
    cost = cost_of(logits, boxes, gt_boxes, classes)
    assert cost.isfinite().all() and cost.abs().max() < 100


def test_predictions_that_are_not_numbers_come_last():
    logits, boxes, gt_boxes, classes = problem(6, 3)
    boxes[:2], logits[2] = torch.nan, torch.nan
    expected = match(logits[3:], boxes[3:], gt_boxes, classes)
    assert torch.equal(match(logits, boxes, gt_boxes, classes)[3:], expected)
    everything = match(logits * torch.nan, boxes, gt_boxes, classes)
    assert (everything >= 0).sum() == 3


def test_half_precision_is_matched_in_single():
    logits, boxes, gt_boxes, classes = problem(30, 5)
    half = match(logits.half(), boxes.half(), gt_boxes, classes)
    single = match(logits.half().float(), boxes.half().float(), gt_boxes, classes)
    assert torch.equal(half, single)


def test_no_gradient_is_kept():
    logits, boxes, gt_boxes, classes = problem(4, 2)
    matched = match(logits.requires_grad_(), boxes.requires_grad_(), gt_boxes, classes)
    assert not matched.requires_grad
