"""Assignment by IoU: low-quality matches and padding."""

import pytest
import torch
from detectron2.structures import Boxes, pairwise_iou

from brloss_d2.criteria import RankingCriterion
from brloss_d2.losses import GIoULoss, RankSortLoss, SelfBalancer, SmoothL1Loss
from brloss_d2.modeling import MaxIoUMatcher
from brloss_d2.modeling.box_coding import BoxTransform
from brloss_d2.modeling.matching import inside_padded_image, kept_rows, match_predictions

IOU = torch.tensor(
    [
        [0.8, 0.2, 0.35, 0.1, 0.0],  # best 0.8: positive anyway
        [0.1, 0.4, 0.4, 0.1, 0.0],  # best 0.4, twice: low quality, both claimed
        [0.1, 0.5, 0.4, 0.0, 0.0],  # best 0.5: claims anchor 1 after the box above
        [0.0, 0.0, 0.0, 0.0, 0.01],  # best 0.01: below the floor
    ]
)


def test_low_quality_matches_have_a_floor_and_move():
    matcher = MaxIoUMatcher([0.3, 0.7], [0, -1, 1], min_low_quality_iou=0.3)
    matches, labels = matcher(IOU)
    assert labels.tolist() == [1, 1, 1, 0, 0]
    assert matches.tolist()[:3] == [0, 2, 1]


def test_only_the_first_of_the_best_anchors_is_claimed():
    """Published assignments of YOLACT; an object that no anchor overlaps changes nothing."""
    anchors = [(0, 0, 10, 10), (0, 0, 10, 12), (2, 0, 12, 10), (40, 40, 60, 60)]
    anchors += [(42, 42, 62, 62), (100, 100, 110, 110), (0, 0, 4, 4)]
    objects = [(0, 0, 10, 10), (1, 0, 11, 10), (44, 44, 50, 50), (200, 200, 210, 210)]
    iou = pairwise_iou(Boxes(torch.tensor(objects)), Boxes(torch.tensor(anchors)))
    matcher = MaxIoUMatcher([0.4, 0.5], [0, -1, 1], min_low_quality_iou=1e-6, single_best=True)
    for given in (iou[:3], iou):
        matches, labels = matcher(given)
        assert labels.tolist() == [1, 1, 1, 1, 0, 0, 0]
        assert matches[:4].tolist() == [1, 0, 1, 2]
    matcher.single_best = False
    assert matcher(iou)[1].tolist() == [1, 1, 1, 1, 1, 0, 0]


def test_low_quality_matches_can_be_off():
    matches, labels = MaxIoUMatcher([0.3, 0.7], [0, -1, 1])(IOU)
    assert labels.tolist() == [1, -1, -1, 0, 0]
    assert matches[0] == 0


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_nothing_to_match(shape):
    matcher = MaxIoUMatcher([0.3, 0.7], [0, -1, 1], min_low_quality_iou=0.3)
    matches, labels = matcher(torch.zeros(shape))
    assert matches.shape == labels.shape == shape[1:]
    assert not labels.any()


def test_padding():
    centers = torch.tensor([[0.0, 0], [95, 63], [96, 0], [0, 64]])
    inside = inside_padded_image(centers, (50, 70), divisor=32)
    assert inside.tolist() == [True, True, False, False]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sizes", [[5, 0, 7], [0, 0, 9, 2], [0], []])
def test_rows_that_are_kept(sizes, share):
    torch.manual_seed(0)
    kept = torch.rand(sum(sizes)) < share
    rows, counts = kept_rows(kept, sizes)
    assert torch.equal(rows, kept.nonzero().squeeze(1))
    assert counts == [int(part.sum()) for part in kept.split(sizes)]


def test_the_ground_truth_is_encoded_for_criteria_that_read_it():
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    parts = torch.zeros(1, 2), torch.tensor([0]), torch.tensor([0]), torch.zeros(1, 4), boxes, boxes
    given = dict(transform=BoxTransform((1.0,) * 4), num_classes=2, rows_per_image=[1])
    assert match_predictions(*parts, **given).gt_deltas.tolist() == [[0.0] * 4]
    assert match_predictions(*parts, **given, encode_targets=False).gt_deltas is None
    assert not RankingCriterion(RankSortLoss(), GIoULoss(), SelfBalancer()).needs_deltas
    assert RankingCriterion(RankSortLoss(), SmoothL1Loss(), SelfBalancer()).needs_deltas
