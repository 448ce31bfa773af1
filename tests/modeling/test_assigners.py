"""Assignment of one-stage detectors: numbers of the published functions, and what happens at the
edges.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes, Instances, pairwise_iou

from brloss_d2.modeling.matching import MaxIoUMatcher
from brloss_d2.modeling.one_stage import LogDistanceTransform, RatioMajorAnchorGenerator
from brloss_d2.modeling.one_stage.assigners import (
    AnchorPredictions,
    ATSSAssigner,
    FoveaAssigner,
    LevelAnchors,
    MaxIoUAssigner,
    PAAAssigner,
    TaskAlignedAssigner,
)
from brloss_d2.modeling.one_stage.assigners.atss import _threshold
from brloss_d2.modeling.one_stage.assigners.gaussian_mixture import split_in_two
from brloss_d2.modeling.one_stage.assigners.paa import _split

BOXES = [[61, 49, 143, 171], [10, 20, 33, 41], [100, 90, 250, 240]]
STRIDES = (8, 16, 32, 64, 128)
FOVEA = FoveaAssigner(
    scale_ranges=[(1, 64), (32, 128), (64, 256), (128, 512), (256, 2048)], sigma=0.4
)
MAX_IOU = MaxIoUAssigner(MaxIoUMatcher([0.4, 0.5], [0, -1, 1], min_low_quality_iou=1e-6))
CANDIDATES = MaxIoUAssigner(MaxIoUMatcher([0.1], [0, 1], min_low_quality_iou=1e-6))
ASSIGNERS = {
    "max_iou": MAX_IOU,
    "atss": ATSSAssigner(topk=9),
    "paa": PAAAssigner(CANDIDATES),
    "fovea": FOVEA,
    "task_aligned": TaskAlignedAssigner(),
}


def objects(boxes=BOXES, size=256) -> Instances:
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    classes = torch.zeros(len(boxes), dtype=torch.long)
    return Instances((size, size), gt_boxes=Boxes(boxes), gt_classes=classes)


def square_anchors(per_octave: int, scale: int, size: int = 256) -> LevelAnchors:
    sizes = [[scale * s * 2 ** (k / per_octave) for k in range(per_octave)] for s in STRIDES]
    return anchors(DefaultAnchorGenerator, sizes=sizes, aspect_ratios=[1.0], offset=0.0, size=size)


def anchors(generator, *, size: int, **settings) -> LevelAnchors:
    maps = [torch.zeros(1, 1, math.ceil(size / s), math.ceil(size / s)) for s in STRIDES]
    return LevelAnchors.cat(generator(strides=STRIDES, **settings)(maps))


def points(size: int = 256) -> LevelAnchors:
    sizes = [[2 * s] for s in STRIDES]
    return anchors(DefaultAnchorGenerator, sizes=sizes, aspect_ratios=[1.0], offset=0.5, size=size)


def positives(assigned: torch.Tensor) -> list[list[int]]:
    return [(assigned == i).nonzero().flatten().tolist() for i in range(int(assigned.max()) + 1)]


class TestATSS:
    def test_three_anchors_a_cell(self):
        assigned = ATSSAssigner(topk=9)(square_anchors(3, 4), objects())
        assert positives(assigned) == [
            [3379, 3380, 3427, 3428, 3430, 3431, 3921, 3924, 3945],
            [297, 298, 390, 391, 393, 394],
            [3975, 3976, 3977, 3978, 3979, 3980, 3999, 4000, 4001],
        ]

    def test_thresholds(self):
        grid, boxes = square_anchors(3, 4), objects().gt_boxes
        candidates = ATSSAssigner(topk=9)._candidates(grid, boxes.tensor)
        assert candidates.shape == (3, 9 * 4 + 9)  # P7 has 2 x 2 cells of 3 anchors
        iou = pairwise_iou(boxes, Boxes(grid.boxes)).gather(1, candidates)
        expected = torch.tensor([0.455912, 0.212873, 0.484211])
        torch.testing.assert_close(_threshold(iou), expected, rtol=0, atol=1e-6)

    def test_one_anchor_a_cell(self):
        assigned = ATSSAssigner(topk=9)(square_anchors(1, 8), objects())
        first, second, third = positives(assigned)
        assert first == [1125, 1126, 1127, 1141, 1142, 1143, 1144, 1158, 1159]
        assert second == [98, 99, 100, 130, 131, 132, 162, 163]
        # The cells 1180 and 1227 are equally near.
        certain = {1178, 1179, 1194, 1195, 1196, 1210, 1211, 1212}
        assert set(third) in (certain | {1180}, certain | {1227})

    def test_of_two_equal_objects_the_first_takes_all(self):
        grid = square_anchors(3, 4)
        alone = ATSSAssigner()(grid, objects(BOXES[:1]))
        assert torch.equal(ATSSAssigner()(grid, objects([BOXES[0], BOXES[0]])), alone)

    def test_an_anchor_of_two_objects_goes_to_the_one_it_overlaps_most(self):
        grid, pair = square_anchors(3, 4), [BOXES[0], [63, 51, 143, 171]]
        alone = [ATSSAssigner()(grid, objects([box])) >= 0 for box in pair]
        contested = (alone[0] & alone[1]).nonzero().flatten()
        assert len(contested)
        together = ATSSAssigner()(grid, objects(pair))[contested]
        iou = pairwise_iou(objects(pair).gt_boxes, Boxes(grid.boxes[contested]))
        assert torch.equal(together, iou.argmax(0))

    def test_the_chunks_do_not_matter(self):
        g = torch.Generator().manual_seed(0)
        xy = torch.rand(40, 2, generator=g) * 200
        boxes = torch.cat([xy, xy + 8 + 40 * torch.rand(40, 2, generator=g)], 1)
        grid = square_anchors(3, 4)
        together = ATSSAssigner()(grid, objects(boxes.tolist()))
        # Objects do not compete where they are far apart: each alone gives the same.
        for i in (0, 17, 39):
            alone = ATSSAssigner()(grid, objects(boxes[i : i + 1].tolist()))
            assert set(positives(together)[i]) <= set(positives(alone)[0])

    def test_topk_is_checked(self):
        with pytest.raises(ValueError, match="topk must be >= 1"):
            ATSSAssigner(topk=0)


class TestMaxIoU:
    def test_retinanet(self):
        sizes = [[4 * s, 4 * s * 2**0.5] for s in STRIDES]
        grid = anchors(
            RatioMajorAnchorGenerator,
            sizes=sizes,
            aspect_ratios=[0.5, 1.0, 2.0],
            offset=0.0,
            size=512,
        )
        assigned = MAX_IOU(grid, objects(size=512))
        counts = [int((assigned == i).sum()) for i in (0, 1, 2, -1, -2)]
        assert counts == [18, 1, 23, 32_619, 75]

    def test_candidates_of_paa(self):
        assigned = CANDIDATES(square_anchors(3, 4), objects())
        counts = [int((assigned == i).sum()) for i in (0, 1, 2, -1, -2)]
        assert counts == [572, 92, 498, 2_930, 0]

    def test_an_object_that_nothing_overlaps(self):
        grid = square_anchors(1, 8)[torch.arange(10)]
        assigned = MAX_IOU(grid, objects([[200, 200, 210, 210]]))
        assert (assigned == -1).all()


class TestFovea:
    def test_positive_cells(self):
        grid = points()
        assigned = FOVEA(grid, objects())
        cells = {}
        for level, stride in enumerate(STRIDES):
            rows = (grid.levels == level).nonzero().flatten()
            of_level = assigned[rows].view(256 // stride, -1)
            for i in range(3):
                cells[level + 3, i] = (of_level == i).nonzero().tolist()
        found = {key: value for key, value in cells.items() if value}
        assert found == {
            (3, 1): [[3, 2]],
            (4, 0): [[5, 5], [5, 6], [6, 5], [6, 6], [7, 5], [7, 6]],
            (5, 0): [[3, 3]],
            (5, 2): [[4, 5], [5, 5]],
            (6, 2): [[2, 2]],
        }

    def test_first_target(self):
        grid = points()
        row = 32 * 32 + 5 * 16 + 5
        target = LogDistanceTransform().get_deltas(grid.boxes[[row]], objects().gt_boxes.tensor[:1])
        expected = torch.tensor([[-0.1699, 0.1978, 0.5416, 0.9531]])
        torch.testing.assert_close(target, expected, rtol=0, atol=5e-5)

    def test_the_smallest_object_takes_a_cell(self):
        large, small = [40, 40, 100, 100], [60, 60, 80, 80]
        for boxes in ([large, small], [small, large]):
            assigned = FOVEA(points(), objects(boxes))
            row = 8 * 32 + 8  # center (68, 68), in the middle of both
            assert assigned[row] == boxes.index(small)

    def test_an_object_between_the_border_and_the_first_center(self):
        """Bounds move to the map, so that the cell at the border is taken."""
        assert FOVEA(points(), objects([[0, 0, 3, 3]]))[0] == 0

    def test_a_small_object_between_centers_has_no_positive(self):
        assert (FOVEA(points(), objects([[7, 7, 9, 9]])) == -1).all()

    def test_sigma_is_checked(self):
        with pytest.raises(ValueError, match="sigma must be in"):
            FoveaAssigner(scale_ranges=[(1, 64)], sigma=0.0)


# Ascending scores and how many of them become positive, by scikit-learn's GaussianMixture.
SPLITS = [
    ([0.62, 0.71, 0.80, 0.85, 1.10, 1.95, 2.40, 2.55, 3.1, 3.3], 3),
    ([1.0, 1.05, 1.1, 1.2, 1.25, 1.3, 1.35], 3),
    ([0.5, 2.0], 1),
    ([1.0, 1.0], 1),
    ([0.40, 0.41, 0.43, 2.2, 2.3, 2.5, 2.6, 2.9, 3.0, 3.5, 3.6, 3.9], 2),
]


class TestPAA:
    @pytest.mark.parametrize(("scores", "count"), SPLITS)
    def test_split_of_one(self, scores, count):
        chosen = _split(torch.tensor(scores), torch.zeros(len(scores), dtype=torch.long), 1, 20)
        assert chosen.tolist() == [i < count for i in range(len(scores))]

    def test_split_of_many_at_once(self):
        losses = torch.tensor([loss for scores, _ in SPLITS for loss in scores])
        sizes = [len(scores) for scores, _ in SPLITS]
        owners = torch.arange(len(SPLITS)).repeat_interleave(torch.tensor(sizes))
        chosen = _split(losses, owners, len(SPLITS), 12).split(sizes)
        assert [int(part.sum()) for part in chosen] == [count for _, count in SPLITS]

    def test_lower_component_and_peak(self):
        values = torch.tensor([SPLITS[0][0]])
        lower, likelihood = split_in_two(values, torch.ones_like(values).bool())
        assert int(lower.sum()) == 5
        assert int(likelihood[0, :5].argmax()) == 2
        # Means 0.8154 and 2.6565, variances 0.02625 and 0.24247, with five samples each.
        for i in (0, 2, 4):
            low = -0.5 * ((SPLITS[0][0][i] - 0.8154) ** 2 / 0.02625 + math.log(0.02625))
            high = -0.5 * ((SPLITS[0][0][i] - 2.6565) ** 2 / 0.24247 + math.log(0.24247))
            expected = math.log(0.5 * (math.exp(low) + math.exp(high)) / math.sqrt(2 * math.pi))
            assert likelihood[0, i].item() == pytest.approx(expected, abs=5e-3)

    def test_one_candidate_is_not_enough(self):
        grid = square_anchors(1, 8)[torch.tensor([1125, 0])]
        predictions = AnchorPredictions(torch.zeros(2, 1), grid.boxes)
        assert (ASSIGNERS["paa"](grid, objects(BOXES[:1]), predictions) == -1).all()

    def test_low_scores_and_good_boxes_win(self):
        """Raising the class score of a candidate makes it positive."""
        grid = square_anchors(3, 4)
        g = torch.Generator().manual_seed(0)
        logits = torch.randn(len(grid), 2, generator=g) * 0.1 - 4
        candidates = (CANDIDATES(grid, objects(BOXES[:1])) == 0).nonzero().flatten()
        best = candidates[::57]
        logits[best, 0] = 6.0
        assigned = ASSIGNERS["paa"](grid, objects(BOXES[:1]), AnchorPredictions(logits, grid.boxes))
        won = (assigned == 0).nonzero().flatten()
        assert len(won)
        assert set(won.tolist()) <= set(best.tolist())

    def test_predictions_are_needed(self):
        with pytest.raises(ValueError, match="needs the predictions"):
            ASSIGNERS["paa"](square_anchors(1, 8), objects())


class TestTaskAligned:
    @pytest.mark.parametrize("topk", [13, 5])
    def test_golden(self, topk):
        """The numbers agree with the published assigner."""
        z = np.load(Path(__file__).parents[1] / "golden" / "quality_aware_losses.npz")
        case = {
            key: torch.from_numpy(z[f"tal_assign_top{topk}/{key}"])
            for key in ("scores", "boxes", "centers", "gt_boxes", "gt_classes", "assigned")
        }
        assert z[f"tal_assign_top{topk}/topk"] == topk
        centers = case["centers"].double()
        boxes = torch.cat([centers - 4, centers + 4], 1)
        grid = LevelAnchors(boxes, torch.zeros(len(centers)).long(), [len(centers)])
        gt = Instances((64, 64), gt_boxes=Boxes(case["gt_boxes"]))
        gt.gt_classes = case["gt_classes"].long()
        predictions = AnchorPredictions(case["scores"].double().logit(), case["boxes"])
        found = TaskAlignedAssigner(topk=topk)(grid, gt, predictions)
        assert found.tolist() == case["assigned"].tolist()
        assert (found >= 0).any()

    def test_many_objects_are_assigned_as_one_by_one(self):
        """Objects far from each other, more than are handled at once."""
        boxes = [[12 * i, 12 * j, 12 * i + 11, 12 * j + 11] for i in range(6) for j in range(6)]
        grid = points()
        logits = torch.randn(len(grid), 1, generator=torch.Generator().manual_seed(0))
        predictions = AnchorPredictions(logits, grid.boxes)
        together = TaskAlignedAssigner()(grid, objects(boxes), predictions)
        for i, box in enumerate(boxes):
            alone = TaskAlignedAssigner()(grid, objects([box]), predictions)
            assert torch.equal(alone == 0, together == i)
        assert (together >= 0).sum() >= len(boxes)

    def test_predictions_are_needed(self):
        with pytest.raises(ValueError, match="needs the predictions"):
            TaskAlignedAssigner()(points(), objects())

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match="topk must be a finite number >= 1"):
            TaskAlignedAssigner(topk=0)


@pytest.mark.parametrize("name", ASSIGNERS)
def test_no_objects_and_no_anchors(name):
    grid = points() if name == "fovea" else square_anchors(3, 4)
    predictions = AnchorPredictions(torch.zeros(len(grid), 1), grid.boxes)
    assert (ASSIGNERS[name](grid, objects([]), predictions) == -1).all()
    none = torch.zeros(0, dtype=torch.long)
    assert ASSIGNERS[name](grid[none], objects(), predictions[none]).shape == (0,)


@pytest.mark.parametrize("name", ASSIGNERS)
def test_the_images_of_a_batch_are_assigned_as_one_by_one(name):
    """Of different sizes, one of them without objects."""
    grid = points() if name == "fovea" else square_anchors(3, 4)
    grids = [grid, grid[torch.arange(0, len(grid), 2)], grid]
    batch = [objects(BOXES[:2]), objects([]), objects(BOXES[1:])]
    g = torch.Generator().manual_seed(0)
    predictions = [AnchorPredictions(torch.randn(len(x), 2, generator=g), x.boxes) for x in grids]
    together = ASSIGNERS[name].of_images(grids, batch, predictions)
    for found, *image in zip(together, grids, batch, predictions, strict=True):
        assert torch.equal(found, ASSIGNERS[name](*image))
    assert (together[2] >= 0).any()


@pytest.mark.parametrize("name", ASSIGNERS)
@pytest.mark.parametrize("gone", [(1,), (3, 4)])
def test_levels_without_anchors(name, gone):
    """As where an image is much smaller than its batch."""
    grid = points() if name == "fovea" else square_anchors(3, 4)
    kept = torch.stack([grid.levels != level for level in gone]).all(0)
    rows = kept.nonzero().flatten()
    predictions = AnchorPredictions(torch.zeros(len(grid), 1), grid.boxes)
    assigned = ASSIGNERS[name](grid[rows], objects(), predictions[rows])
    assert assigned.shape == rows.shape
    assert (assigned >= 0).any()


@pytest.mark.parametrize("name", ASSIGNERS)
def test_five_hundred_objects_on_a_full_image(name):
    """800 x 1344 pixels: 67 thousand anchors. Any tensor of all pairs counts 33 million."""
    g = torch.Generator().manual_seed(0)
    xy = torch.rand(500, 2, generator=g) * torch.tensor([1250.0, 700.0])
    boxes = torch.cat([xy, xy + 5 + 80 * torch.rand(500, 2, generator=g)], 1)
    many = Instances((800, 1344), gt_boxes=Boxes(boxes))
    many.gt_classes = torch.zeros(500, dtype=torch.long)
    maps = [torch.zeros(1, 1, math.ceil(800 / s), math.ceil(1344 / s)) for s in STRIDES]
    ratio = name != "fovea"
    sizes = [[4 * s * 2 ** (k / 3) for k in range(3)] if ratio else [2 * s] for s in STRIDES]
    generator = DefaultAnchorGenerator(
        sizes=sizes, aspect_ratios=[1.0], strides=STRIDES, offset=0.0 if ratio else 0.5
    )
    grid = LevelAnchors.cat(generator(maps))
    predictions = AnchorPredictions(torch.zeros(len(grid), 1), grid.boxes)
    assigned = ASSIGNERS[name](grid, many, predictions)
    assert len(assigned[assigned >= 0].unique()) > 300
