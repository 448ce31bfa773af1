"""Matches from the overlaps of an evaluation: those of the official implementations."""

import json

import numpy as np
import pytest
from detectron2.evaluation.coco_evaluation import instances_to_coco_json

from brloss_d2.evaluation.lrp import OptimalLRP
from brloss_d2.evaluation.matches import match_detections
from brloss_d2.evaluation.protocols import evaluate_detections, read_ground_truth
from tests.helpers import random_boxes

AREAS = {"all": 0, "small": 1, "medium": 2, "large": 3}


def random_case(seed, count=40, *, crowds=True):
    rng = np.random.default_rng(seed)
    data = random_boxes.ground_truth(rng, images=12, categories=5, objects=9, crowds=crowds)
    return data, random_boxes.detections(rng, data, count)


def evaluated(data, pairs, task, path, *, limit=100, official=True):
    path.write_text(json.dumps(data))
    results = [
        {**record, "category_id": record["category_id"] + 1}
        for image, output in pairs
        for record in instances_to_coco_json(output["instances"], image["image_id"])
    ]
    truth = read_ground_truth(str(path))
    return evaluate_detections(truth, results, task, limits=[1, 10, limit], official=official)


def official(evaluation, area):
    """Labels, scores and correctness, sorted, and the objects of each class, from `evalImgs`."""
    evaluation = evaluation.computed
    images, classes = len(evaluation.params.imgIds), len(evaluation.params.catIds)
    rows, objects = [], np.zeros(classes, int)
    for label in range(classes):
        start = (label * len(AREAS) + AREAS[area]) * images
        for cell in filter(None, evaluation.evalImgs[start : start + images]):
            counted = ~cell["dtIgnore"][0].astype(bool)
            columns = cell["dtScores"], cell["dtMatches"][0] > 0
            rows += [
                (label, *row)
                for row, keep in zip(zip(*columns, strict=True), counted, strict=True)
                if keep
            ]
            objects[label] += (np.array(cell["gtIgnore"]) == 0).sum()
    return sorted(rows), objects.tolist()


def rows_of(matches):
    columns = matches.labels, matches.scores, matches.correct
    return sorted(zip(*columns, strict=True)), matches.num_objects.tolist()


@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_equal_to_pycocotools(tmp_path, task, area):
    """Crowds, ties, an empty category, an image without objects, ranges of areas."""
    evaluation = evaluated(*random_case(0), task, tmp_path / "truth.json")
    matches = match_detections(evaluation, area=area)
    expected = official(evaluation, area)
    assert rows_of(matches) == expected
    assert any(correct for *_, correct in expected[0]) or area == "large"
    assert (matches.ious[matches.correct] >= 0.5).all()


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_overlaps_are_those_of_pycocotools(tmp_path, task):
    """Each match has an IoU of the matrix that pycocotools computed for its image and class."""
    evaluation = evaluated(*random_case(0), task, tmp_path / "truth.json")
    matches = match_detections(evaluation)
    ious = evaluation.computed.ious
    for row in np.flatnonzero(matches.correct):
        image = evaluation.image_ids[matches.images[row]]
        own = ious[image, evaluation.class_ids[matches.labels[row]]]
        assert matches.ious[row] in own


def test_the_limit_of_detections(tmp_path):
    case = random_case(1, 60)
    evaluation = evaluated(*case, "bbox", tmp_path / "truth.json", limit=10)
    matches = match_detections(evaluation)
    assert rows_of(matches) == official(evaluation, "all")
    cells = matches.images * 5 + matches.labels
    assert np.bincount(cells).max() == 10


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_hotcoco_gives_the_same(tmp_path, task):
    pytest.importorskip("hotcoco")
    for seed, area in ((0, "all"), (1, "all"), (2, "all"), (2, "small"), (2, "medium")):
        fast, slow = (
            match_detections(
                evaluated(*random_case(seed), task, tmp_path / "truth.json", official=kind),
                area=area,
            )
            for kind in (False, True)
        )
        for name, values in vars(slow).items():
            np.testing.assert_array_equal(getattr(fast, name), values, err_msg=name)
        rows = OptimalLRP.of(fast).rows()
        np.testing.assert_array_equal(rows, OptimalLRP.of(slow).rows())
        assert ((rows[:4, 0] > 0) & (rows[:4, 0] < 1)).all(), "the case says something"
        assert np.isnan(rows[4]).all(), "no object of that category"


def evaluated_boxes(path, objects, found):
    """An image of one class: objects (box, crowd) and detections (box, score), XYWH."""
    common = {"image_id": 1, "category_id": 1}
    data = {
        "images": [{"id": 1, "height": 120, "width": 160}],
        "annotations": [
            {**common, "id": id_, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for id_, (box, crowd) in enumerate(objects, 1)
        ],
        "categories": [{"id": 1, "name": "nut"}],
    }
    path.write_text(json.dumps(data))
    results = [{**common, "bbox": box, "score": score} for box, score in found]
    truth = read_ground_truth(str(path))
    return evaluate_detections(truth, results, "bbox")


def test_crowds_absorb_any_number_of_detections(tmp_path):
    """Two detections of a crowd do not count, whereas a second one of an object is wrong."""
    box, crowd = [10.0, 10.0, 20.0, 20.0], [60.0, 60.0, 40.0, 40.0]
    small = [65.0, 65.0, 9.0, 9.0]
    found = [(box, 0.9), (box, 0.8), (crowd, 0.7), (small, 0.6)]
    matches = match_detections(
        evaluated_boxes(tmp_path / "truth.json", [(box, 0), (crowd, 1)], found)
    )
    assert matches.scores.tolist() == [0.9, 0.8]
    assert matches.ious.tolist() == [1.0, 0.0]
    assert matches.num_objects.tolist() == [1]


def test_a_detection_takes_the_object_that_it_overlaps_most(tmp_path):
    """The second one, of the same place, takes the neighbor, and there is none for the third."""
    objects = [[10.0, 10.0, 20.0, 20.0], [12.0, 10.0, 20.0, 20.0]]
    found = [(objects[1], 0.9), (objects[1], 0.8), (objects[1], 0.7)]
    matches = match_detections(
        evaluated_boxes(tmp_path / "truth.json", [(box, 0) for box in objects], found)
    )
    np.testing.assert_allclose(matches.ious, [1, 360 / 440, 0])


def test_an_overlap_of_exactly_one_half_is_a_match(tmp_path):
    box, half = [10.0, 10.0, 20.0, 20.0], [10.0, 10.0, 10.0, 20.0]
    less = [10.0, 10.0, 9.9, 20.0]
    for detection, iou in ((half, 0.5), (less, 0.0)):
        evaluation = evaluated_boxes(tmp_path / "truth.json", [(box, 0)], [(detection, 0.9)])
        assert match_detections(evaluation).ious.tolist() == [iou]


def test_lvis_equals_the_official_implementation(tmp_path):
    lvis = pytest.importorskip("lvis")
    pytest.importorskip("hotcoco")
    rng = np.random.default_rng(3)
    data, pairs = random_case(3, crowds=False)
    data = random_boxes.federated(rng, data)
    (tmp_path / "truth.json").write_text(json.dumps(data))
    results = [
        {**record, "category_id": record["category_id"] + 1}
        for image, output in pairs
        for record in instances_to_coco_json(output["instances"], image["image_id"])
    ]
    truth = lvis.LVIS(str(tmp_path / "truth.json"))
    fast, evaluation = (
        evaluate_detections(truth, results, "bbox", limits=[300], lvis=True, official=official)
        for official in (False, True)
    )
    params = evaluation.computed.params
    rows, objects = [], np.zeros(5, int)
    for number, cell in enumerate(evaluation.computed.eval_imgs):
        label, area = divmod(number // len(params.img_ids), 4)
        if cell is None or area != 0:
            continue
        keep = ~cell["dt_ignore"][0].astype(bool)
        correct = cell["dt_matches"][0] > 0
        columns = np.array(cell["dt_scores"])[keep].tolist(), correct[keep].tolist()
        rows += [(label, *row) for row in zip(*columns, strict=True)]
        objects[label] += (np.array(cell["gt_ignore"]) == 0).sum()
    for each in (fast, evaluation):
        assert rows_of(match_detections(each)) == (sorted(rows), objects.tolist())
    assert 0 < len(rows) < len(results), "some do not count"
