"""From outputs of a one-stage head to detections."""

import pytest
import torch
from detectron2.structures import Boxes, Instances

from brloss_d2.modeling import DensePostprocessor, ScoreVoting, TopAnchors, TopPairs
from brloss_d2.modeling.one_stage import postprocessing

PROBS = torch.tensor([[0.9, 0.8, 0.01], [0.3, 0.02, 0.1], [0.7, 0.6, 0.5]])
QUALITY = torch.tensor([0.25, 1.0, 0.81])


def pairs(selected) -> dict[tuple[int, int], float]:
    rows, classes, scores = selected
    return {
        (int(r), int(c)): round(float(s), 4) for r, c, s in zip(rows, classes, scores, strict=True)
    }


def test_top_anchors_keep_every_class_of_the_best_anchors():
    found = pairs(TopAnchors(topk=2, score_thresh=0.05)(PROBS))
    assert found == {(0, 0): 0.9, (0, 1): 0.8, (2, 0): 0.7, (2, 1): 0.6, (2, 2): 0.5}


def test_top_pairs_keep_the_best_pairs():
    assert pairs(TopPairs(topk=3, score_thresh=0.05)(PROBS)) == {
        (0, 0): 0.9,
        (0, 1): 0.8,
        (2, 0): 0.7,
    }


def test_quality_enters_before_or_after_the_selection():
    anchors = pairs(TopAnchors(topk=1, score_thresh=0.05)(PROBS, QUALITY))
    assert anchors == {(2, 0): 0.753, (2, 1): 0.6971, (2, 2): 0.6364}
    assert pairs(TopPairs(topk=1)(PROBS, QUALITY)) == {(0, 0): 0.225}


@pytest.mark.parametrize("select", [TopAnchors(), TopPairs()])
def test_few_or_no_candidates(select):
    assert len(select(torch.full((3, 2), 0.01))[0]) == 0
    assert len(select(torch.zeros(0, 2))[0]) == 0
    assert len(select(PROBS)[0]) == 7


CANDIDATE_BOXES = torch.tensor(
    [
        [10.0, 10, 50, 50],
        [12.0, 11, 53, 49],
        [9.0, 14, 47, 55],
        [100.0, 100, 140, 150],
        [104.0, 98, 145, 148],
    ]
)
CLASS_SCORES = torch.tensor([[0.9, 0.1], [0.7, 0.02], [0.4, 0.0], [0.06, 0.8], [0.0, 0.5]])


def test_score_voting():
    """Numbers of the published function."""
    found = DensePostprocessor(TopAnchors(), voting=ScoreVoting())(
        [Boxes(CANDIDATE_BOXES)],
        [CLASS_SCORES],
        [torch.zeros(5, 4)],
        None,
        decode=lambda deltas, boxes: boxes,
        image_size=(200, 200),
    )
    expected = {
        (0, 0.9): [10.4213, 10.2922, 50.6047, 49.8710],
        (1, 0.8): [100.1745, 99.9128, 140.2181, 149.9128],
        (1, 0.1): [10.0, 10, 50, 50],
        (0, 0.06): [100.0, 100, 140, 150],
    }
    ours = {
        (int(c), round(float(s), 3)): box
        for c, s, box in zip(found.pred_classes, found.scores, found.pred_boxes, strict=True)
    }
    assert list(ours) == list(expected)  # by descending score
    for key, box in expected.items():
        torch.testing.assert_close(ours[key], torch.tensor(box), rtol=0, atol=1e-4)


def test_a_detection_without_area_is_left_alone():
    line = Boxes(torch.tensor([[5.0, 5, 5, 20]]))
    one = Instances((50, 50), pred_boxes=line, scores=torch.tensor([0.9]))
    one.pred_classes = torch.tensor([0])
    assert torch.equal(ScoreVoting()(one, one).pred_boxes.tensor, line.tensor)


def test_boxes_are_clipped_before_suppression():
    """Two boxes that differ outside the image only are one detection."""
    boxes = Boxes(torch.tensor([[20.0, 0, 200, 40], [20.0, 0, 60, 40]]))
    arguments = dict(decode=lambda deltas, b: b, image_size=(50, 50))
    probs, deltas = [torch.tensor([[0.9], [0.8]])], [torch.zeros(2, 4)]
    for border, side in ((0.0, 50.0), (1.0, 49.0)):
        process = DensePostprocessor(TopAnchors(), border=border)
        found = process([boxes], probs, deltas, None, **arguments)
        assert found.pred_boxes.tensor.tolist() == [[20.0, 0.0, side, 40.0]]


def test_at_most_so_many_detections():
    corners = 10 * torch.arange(30.0)[:, None]
    boxes = Boxes(torch.cat([corners, corners, corners + 9, corners + 9], 1))
    found = DensePostprocessor(TopPairs(), max_detections=7)(
        [boxes],
        [torch.linspace(0.1, 0.9, 30)[:, None]],
        [torch.zeros(30, 4)],
        None,
        decode=lambda deltas, b: b,
        image_size=(400, 400),
    )
    assert len(found) == 7
    assert found.scores[0] == pytest.approx(0.9)


@pytest.mark.parametrize("most", [20, 4000])
def test_the_best_of_many_candidates_are_those_of_all(most, monkeypatch):
    monkeypatch.setattr(postprocessing, "_COMPARED_AT_ONCE", 100)
    g = torch.Generator().manual_seed(0)
    xy = torch.rand(400, 2, generator=g) * 100
    candidates = Instances((200, 200), scores=torch.rand(400, generator=g))
    candidates.pred_boxes = Boxes(torch.cat([xy, xy + 40], 1))
    candidates.pred_classes = torch.randint(3, (400,), generator=g)
    boxes, scores = candidates.pred_boxes.tensor, candidates.scores
    whole = postprocessing.batched_nms(boxes, scores, candidates.pred_classes, 0.5)
    assert 100 < len(whole) < 400
    assert torch.equal(postprocessing.suppress(candidates, 0.5, most), whole[:most])
