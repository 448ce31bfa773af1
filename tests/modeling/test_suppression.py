"""Fast NMS against its definition, class by class, and the cases that tell it from greedy NMS."""

import pytest
import torch
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor

from brloss_d2.modeling import FastNMSPostprocessor
from brloss_d2.modeling.one_stage import fast_nms


def strips(*left: float) -> Tensor:
    """Boxes of 10 x 10 pixels at these positions."""
    x = torch.tensor(left)
    return torch.stack([x, 0 * x, x + 10, 0 * x + 10], 1)


def slowly(boxes: Tensor, scores: Tensor, nms_thresh: float, score_thresh: float, most: int) -> set:
    """The pairs of row and class that are kept, by loops."""
    iou, kept = pairwise_iou(Boxes(boxes), Boxes(boxes)), set()
    for k in range(scores.shape[1]):
        order = scores[:, k].argsort(descending=True)[:most].tolist()
        for place, row in enumerate(order):
            free = all(iou[better, row] <= nms_thresh for better in order[:place])
            if free and scores[row, k] > score_thresh:
                kept.add((row, k))
    return kept


@pytest.mark.parametrize("most", [7, 200])
def test_against_loops(most):
    torch.manual_seed(0)
    scores = torch.rand(60, 70)  # more classes than are compared at once
    corners = 60 * torch.rand(60, 2)
    boxes = torch.cat([corners, corners + 10 + 40 * torch.rand(60, 2)], 1)
    rows, classes, best = fast_nms(
        boxes, scores, nms_thresh=0.4, score_thresh=0.3, max_per_class=most
    )
    expected = slowly(boxes, scores, 0.4, 0.3, most)
    assert len(rows) == len(expected) > 70
    assert set(zip(rows.tolist(), classes.tolist(), strict=True)) == expected
    assert torch.equal(best, scores[rows, classes])
    assert torch.equal(best, best.sort(descending=True).values)


def test_a_dropped_box_drops_others():
    rows, _, scores = fast_nms(strips(0, 3, 6), torch.tensor([[0.9], [0.8], [0.7]]))
    assert rows.tolist() == [0]  # greedily, the third would be kept
    assert scores.tolist() == pytest.approx([0.9])


def test_the_bound_itself_is_kept():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])
    scores = torch.tensor([[0.9], [0.8]])
    assert len(fast_nms(boxes, scores, nms_thresh=0.5)[0]) == 2
    assert len(fast_nms(boxes, scores, nms_thresh=0.49)[0]) == 1


def test_a_box_of_two_classes_below_the_threshold_and_without_area():
    boxes = torch.cat([strips(0, 0), torch.zeros(2, 4)])
    scores = torch.tensor([[0.9, 0.6], [0.04, 0.05], [0.5, 0.0], [0.4, 0.0]])
    rows, classes, _ = fast_nms(boxes, scores)
    assert list(zip(rows.tolist(), classes.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (2, 0),
        (3, 0),
    ]


@pytest.mark.parametrize("scores", [torch.zeros(0, 3), torch.full((2, 3), 0.01)])
def test_nothing_to_keep(scores):
    assert [len(x) for x in fast_nms(strips(0, 1)[: len(scores)], scores)] == [0, 0, 0]


def test_ties_keep_the_order_of_the_boxes():
    rows, _, _ = fast_nms(strips(0, 20, 40, 60), torch.full((4, 1), 0.5))
    assert rows.tolist() == [0, 1, 2, 3]


def test_anchors_of_detections_are_counted_over_all_levels():
    select = FastNMSPostprocessor(topk=2, max_detections=3)
    probs = [torch.tensor([[0.1], [0.9], [0.6]]), torch.tensor([[0.8], [0.2]])]
    anchors = [Boxes(strips(0, 20, 40)), Boxes(strips(60, 1000))]
    found = select(
        anchors,
        probs,
        [torch.zeros(3, 4), torch.zeros(2, 4)],
        None,
        decode=lambda deltas, boxes: deltas + boxes,
        image_size=(8, 66),
    )
    assert found.anchor_rows.tolist() == [1, 3, 2]
    assert found.pred_boxes.tensor.tolist()[1] == [60, 0, 66, 8]  # clipped
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.6])


def test_quality_counts_before_the_selection():
    select = FastNMSPostprocessor(topk=1)
    found = select(
        [Boxes(strips(0, 20))],
        [torch.tensor([[0.9], [0.8]])],
        [torch.zeros(2, 4)],
        [torch.tensor([0.1, 0.8])],
        decode=lambda deltas, boxes: boxes,
        image_size=(50, 50),
    )
    assert found.anchor_rows.tolist() == [1]
    assert found.scores.tolist() == pytest.approx([0.8])


def test_numbers_of_boxes():
    with pytest.raises(ValueError, match="max_per_class must be a finite number >= 1"):
        FastNMSPostprocessor(max_per_class=0)
