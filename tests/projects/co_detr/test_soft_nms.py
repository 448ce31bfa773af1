"""Soft suppression against the definition, and what it leaves alone."""

import pytest
import torch
from detectron2.structures import Boxes, Instances
from torchvision.ops import box_iou

from brloss_d2.projects.co_detr.modeling.soft_nms import SoftNMS


def detections(number: int, classes: int = 3, seed: int = 0) -> Instances:
    """Detections in clusters, so that many of them overlap."""
    g = torch.Generator().manual_seed(seed)
    centers = torch.rand(max(number // 6, 1), 2, generator=g) * 80 + 10
    centers = centers.repeat(number, 1)[:number] + torch.rand(number, 2, generator=g) * 2
    corners = torch.cat([centers - 8, centers + 8 + torch.rand(number, 2, generator=g)], 1)
    found = Instances((100, 100), pred_boxes=Boxes(corners))
    found.scores = torch.rand(number, generator=g) ** 3
    found.pred_classes = torch.randint(classes, (number,), generator=g)
    found.row = torch.arange(number)
    return found


def by_definition(found: Instances, threshold: float, floor: float) -> list[tuple[int, float]]:
    """Pairs of row and score: a loop over lists."""
    iou = box_iou(found.pred_boxes.tensor, found.pred_boxes.tensor).tolist()
    classes, scores = found.pred_classes.tolist(), found.scores.tolist()
    left, kept = list(range(len(found))), []
    while left:
        best = max(left, key=lambda i: scores[i])
        left.remove(best)
        kept.append((best, scores[best]))
        for i in left:
            if classes[i] == classes[best] and iou[i][best] >= threshold:
                scores[i] *= 1 - iou[i][best]
        left = [i for i in left if scores[i] >= floor]
    return kept


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("floor", [0.0, 1e-3, 0.1])
def test_the_definition(threshold: float, floor: float) -> None:
    found = detections(60)
    kept = SoftNMS(iou_threshold=threshold, min_score=floor)(found, 100)
    expected = by_definition(found, threshold, floor)
    assert kept.row.tolist() == [row for row, _ in expected]
    torch.testing.assert_close(kept.scores, torch.tensor([score for _, score in expected]))
    assert len(kept) < 60 or (kept.scores != found.scores[kept.row]).any()


def test_no_more_than_asked_for() -> None:
    found = detections(60)
    every, few = SoftNMS()(found, 60), SoftNMS()(found, 7)
    assert few.row.tolist() == every.row[:7].tolist()
    torch.testing.assert_close(few.scores, every.scores[:7])


def test_copies_of_a_box_end_with_a_score_of_0() -> None:
    found = Instances.cat([detections(4, classes=1, seed=1)] * 3)
    kept = SoftNMS(min_score=0.0)(found, 100)
    assert len(kept) == 4 and len(kept.row.unique()) == 4


def test_images_of_a_batch_are_suppressed_alone() -> None:
    images = [detections(30, seed=seed) for seed in (0, 1)]
    fields = ([x.pred_boxes.tensor for x in images], [x.scores for x in images])
    boxes, scores, labels = map(torch.stack, (*fields, [x.pred_classes for x in images]))
    kept, lowered = SoftNMS().of_batch(boxes, scores, labels, 30)
    for i, image in enumerate(images):
        alone = SoftNMS()(image, 30)
        assert kept[i, : len(alone)].tolist() == alone.row.tolist()
        assert torch.equal(lowered[i, : len(alone)], alone.scores)
        assert (lowered[i, len(alone) :] == 0).all()


def test_classes_do_not_suppress_each_other() -> None:
    found = detections(12, classes=1)[:2]
    found.pred_boxes.tensor[:] = torch.tensor([0.0, 0.0, 10.0, 10.0])
    found.scores, found.pred_classes = torch.tensor([0.5, 0.9]), torch.tensor([0, 1])
    assert SoftNMS()(found, 100).scores.tolist() == pytest.approx([0.9, 0.5])
    found.pred_classes = torch.tensor([1, 1])
    assert SoftNMS()(found, 100).scores.tolist() == pytest.approx([0.9])


def test_the_best_box_stays_whatever_its_score() -> None:
    found = detections(5)
    found.scores = torch.full((5,), 1e-4)
    assert len(SoftNMS()(found, 100)) == 1
    assert len(SoftNMS()(found[:0], 100)) == 0


@pytest.mark.parametrize("name", ["iou_threshold", "min_score"])
def test_wrong_numbers(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a finite number in"):
        SoftNMS(**{name: -1.0})
