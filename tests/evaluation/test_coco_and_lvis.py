"""The evaluators of COCO and LVIS: hotcoco finds what the official packages find."""

import json
import logging

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances
from pycocotools.cocoeval import COCOeval

from brloss_d2.evaluation import COCOEvaluator, LVISEvaluator
from tests.helpers import random_boxes

NAME = "test_evaluation"


@pytest.fixture
def register(tmp_path):
    """Write ground truth and register it for one test."""

    def register(data):
        file = tmp_path / "truth.json"
        file.write_text(json.dumps(data))
        classes = [category["name"] for category in data["categories"]]
        ids = {category["id"]: i for i, category in enumerate(data["categories"])}
        MetadataCatalog.get(NAME).set(
            json_file=str(file), thing_classes=classes, thing_dataset_id_to_contiguous_id=ids
        )

    yield register
    MetadataCatalog.pop(NAME, None)


def evaluate(evaluator, pairs):
    evaluator.reset()
    for image, output in pairs:
        evaluator.process([image], [output])
    return evaluator.evaluate()


def assert_same(fast, official, tasks):
    assert set(fast) == set(official) == tasks
    for task in tasks:
        assert list(fast[task]) == list(official[task])
        for metric, value in official[task].items():
            assert fast[task][metric] == pytest.approx(value, abs=1e-9, nan_ok=True), metric


@pytest.mark.parametrize(("max_dets", "count"), [(None, 40), (None, 130), (300, 330)])
def test_coco_fast_equals_official(register, max_dets, count):
    """Crowds, an empty category, ties, an image without objects, more detections than count."""
    pytest.importorskip("hotcoco")
    rng = np.random.default_rng(count)
    data = random_boxes.ground_truth(rng, images=12, categories=5, objects=9, crowds=True)
    register(data)
    pairs = random_boxes.detections(rng, data, count)
    fast, official = (
        evaluate(COCOEvaluator(NAME, max_dets_per_image=max_dets, use_fast_impl=fast), pairs)
        for fast in (True, False)
    )
    assert_same(fast, official, {"bbox", "segm"})
    assert 5 < official["bbox"]["AP"] < 95, "the case says something"
    assert np.isnan(official["bbox"]["AP-c5"]), "no object of that category"
    for task in official.values():
        assert 5 < task["oLRP"] < 95 and 0 < task["score_threshold"] < 1
        own = [task[f"oLRP-c{number}"] for number in range(1, 5)]
        assert task["oLRP"] == pytest.approx(np.mean(own))
        assert np.isnan(task["oLRP-c5"])


@pytest.mark.parametrize(("max_dets", "count"), [(None, 40), (300, 330)])
def test_lvis_fast_equals_official(register, max_dets, count):
    pytest.importorskip("hotcoco")
    pytest.importorskip("lvis")
    rng = np.random.default_rng(count)
    data = random_boxes.ground_truth(rng, images=12, categories=7, objects=9, crowds=False)
    register(data := random_boxes.federated(rng, data))
    pairs = random_boxes.detections(rng, data, count)
    fast, official = (
        evaluate(LVISEvaluator(NAME, max_dets_per_image=max_dets, use_fast_impl=fast), pairs)
        for fast in (True, False)
    )
    assert_same(fast, official, {"bbox", "segm"})
    values = [official["segm"][metric] for metric in ("AP", "APr", "APc", "APf")]
    assert len(set(values)) == 4 and all(1 < value < 99 for value in values)
    assert all(5 < official[task]["oLRP"] < 95 for task in official)


def test_lvis_says_nan_for_what_it_cannot_compute(register):
    pytest.importorskip("lvis")
    rng = np.random.default_rng(0)
    data = random_boxes.ground_truth(rng, images=4, categories=3, objects=4, crowds=False)
    data = random_boxes.federated(rng, data)
    for category in data["categories"]:
        category["frequency"] = "f"
    register(data)
    results = evaluate(LVISEvaluator(NAME), random_boxes.detections(rng, data, 9))
    assert np.isnan(results["bbox"]["APr"]) and results["bbox"]["APf"] > 0


def small_case(seed=0, *, count=9):
    rng = np.random.default_rng(seed)
    data = random_boxes.ground_truth(rng, images=6, categories=4, objects=5, crowds=True)
    return data, random_boxes.detections(rng, data, count)


def shifted(data, pairs, by):
    """The same with all image ids moved by a number."""
    images = [{**image, "id": image["id"] + by} for image in data["images"]]
    annotations = [{**a, "image_id": a["image_id"] + by} for a in data["annotations"]]
    pairs = [({"image_id": image["image_id"] + by}, output) for image, output in pairs]
    return {**data, "images": images, "annotations": annotations}, pairs


@pytest.mark.parametrize("max_dets", [3, 5, 100])
def test_scores_that_are_all_equal(register, max_dets):
    """And fewer detections than the smaller limits of COCO."""
    pytest.importorskip("hotcoco")
    data, pairs = small_case(1, count=40)
    for _, output in pairs:
        output["instances"].scores[:] = 0.5
    register(data)
    fast, official = (
        evaluate(COCOEvaluator(NAME, max_dets_per_image=max_dets, use_fast_impl=fast), pairs)
        for fast in (True, False)
    )
    assert_same(fast, official, {"bbox", "segm"})
    assert 0 < official["bbox"]["AP"] < 95


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    "ids",
    [
        lambda i: i,  # pycocotools alone takes a match with annotation 0 for none
        lambda i: i - 5,
        lambda i: i + 2**62,  # more digits than float64 holds, which matches are kept in
        lambda i: i // 2 + 1,
        lambda i: f"object {i}",
    ],
    ids=["from 0", "negative", "64 bits", "twice", "text"],
)
def test_ids_of_annotations_do_not_matter(register, fast, ids):
    if fast:
        pytest.importorskip("hotcoco")
    data, pairs = small_case()
    register(data)
    expected = evaluate(COCOEvaluator(NAME, use_fast_impl=False), pairs)
    for number, annotation in enumerate(data["annotations"]):
        annotation["id"] = ids(number)
    MetadataCatalog.pop(NAME)
    register(data)
    found = evaluate(COCOEvaluator(NAME, use_fast_impl=fast), pairs)
    assert_same(found, expected, {"bbox", "segm"})


def test_image_ids_of_64_bits(register, caplog):
    pytest.importorskip("hotcoco")
    data, pairs = shifted(*small_case(), 2**62)
    register(data)
    with caplog.at_level(logging.DEBUG, logger="brloss_d2"):
        fast, official = (
            evaluate(COCOEvaluator(NAME, use_fast_impl=fast), pairs) for fast in (True, False)
        )
    assert_same(fast, official, {"bbox", "segm"})
    assert sum("evaluation by hotcoco" in r.getMessage() for r in caplog.records) == 2


def test_what_hotcoco_refuses_is_evaluated_officially(register, caplog):
    """Negative image ids, and boxes that are not finite, which it would match differently."""
    pytest.importorskip("hotcoco")
    data, pairs = shifted(*small_case(), -100)
    register(data)
    expected = evaluate(COCOEvaluator(NAME, use_fast_impl=False), pairs)
    caplog.clear()  # other tests may leave the logger at DEBUG
    with caplog.at_level(logging.DEBUG, logger="brloss_d2"):
        assert_same(evaluate(COCOEvaluator(NAME), pairs), expected, {"bbox", "segm"})
    messages = [record.getMessage() for record in caplog.records]
    assert sum("hotcoco cannot evaluate" in message for message in messages) == 2
    assert sum("evaluation by pycocotools" in message for message in messages) == 2

    data, pairs = small_case()
    pairs[1][1]["instances"].pred_boxes.tensor[::3] = np.nan
    MetadataCatalog.pop(NAME)
    register(data)
    found, expected = (
        evaluate(COCOEvaluator(NAME, ("bbox",), use_fast_impl=fast), pairs)
        for fast in (True, False)
    )
    assert_same(found, expected, {"bbox"})


def test_lvis_without_hotcoco_and_with_ids_from_0(register, monkeypatch):
    pytest.importorskip("lvis")
    rng = np.random.default_rng(2)
    data = random_boxes.ground_truth(rng, images=6, categories=4, objects=5, crowds=False)
    data = random_boxes.federated(rng, data)
    for number, annotation in enumerate(data["annotations"]):
        annotation["id"] = number
    register(data)
    pairs = random_boxes.detections(rng, data, 20)
    results = [evaluate(LVISEvaluator(NAME), pairs)]
    monkeypatch.setattr("brloss_d2.evaluation.protocols.hotcoco", None)
    results.append(evaluate(LVISEvaluator(NAME), pairs))
    assert_same(*results, {"bbox", "segm"})


@pytest.mark.parametrize("ignored", [False, True])
def test_lvis_with_ids_of_64_bits_and_ignored_objects(register, caplog, ignored):
    """hotcoco does not read `ignore`."""
    pytest.importorskip("hotcoco")
    pytest.importorskip("lvis")
    rng = np.random.default_rng(2)
    data = random_boxes.ground_truth(rng, images=6, categories=4, objects=5, crowds=False)
    data = random_boxes.federated(rng, data)
    data, pairs = shifted(data, random_boxes.detections(rng, data, 20), 2**62)
    for annotation in data["annotations"][::2] if ignored else ():
        annotation["ignore"] = 1
    register(data)
    with caplog.at_level(logging.DEBUG, logger="brloss_d2"):
        fast, official = (
            evaluate(LVISEvaluator(NAME, use_fast_impl=fast), pairs) for fast in (True, False)
        )
    assert_same(fast, official, {"bbox", "segm"})
    by_hotcoco = sum("evaluation by hotcoco" in r.getMessage() for r in caplog.records)
    assert by_hotcoco == (0 if ignored else 2)


def test_evaluating_some_of_the_images(register):
    pytest.importorskip("hotcoco")
    data, pairs = small_case(3)
    register(data)
    ids = [image["id"] for image in data["images"]][1:4]
    results = []
    for fast in (True, False):
        evaluator = COCOEvaluator(NAME, use_fast_impl=fast)
        evaluator.reset()
        for image, output in pairs:
            evaluator.process([image], [output])
        results.append(evaluator.evaluate(img_ids=ids))
    assert_same(*results, {"bbox", "segm"})


@pytest.mark.parametrize("fast", [True, False])
def test_nothing_counts(register, fast):
    """The only object is a crowd, and the only detection finds it."""
    if fast:
        pytest.importorskip("hotcoco")
    data, _ = small_case(0)
    crowd = next(a for a in data["annotations"] if a["iscrowd"])
    data["annotations"] = [crowd]
    register(data)
    x, y, w, h = crowd["bbox"]
    found = Instances((random_boxes.HEIGHT, random_boxes.WIDTH))
    found.pred_boxes = Boxes(torch.tensor([[x, y, x + w, y + h]]))
    found.scores, found.pred_classes = torch.ones(1), torch.tensor([crowd["category_id"] - 1])
    pairs = [({"image_id": crowd["image_id"]}, {"instances": found})]
    results = evaluate(COCOEvaluator(NAME, use_fast_impl=fast), pairs)["bbox"]
    assert np.isnan(results["AP"]) and np.isnan(results["oLRP"])
    assert np.isnan(results["score_threshold"])


def test_keypoints_are_left_to_detectron2(register):
    data, _ = small_case(0)
    data["annotations"] = [a for a in data["annotations"] if not a["iscrowd"]]
    pairs = {image["id"]: [] for image in data["images"]}
    for annotation in data["annotations"]:
        x, y, w, h = annotation["bbox"]
        points = [[x, y, 2], [x + w, y, 2], [x, y + h, 2]]
        annotation.update(keypoints=np.ravel(points).tolist(), num_keypoints=3)
        pairs[annotation["image_id"]].append((annotation["category_id"] - 1, points))
    register(data)
    outputs = []
    for image_id, objects in pairs.items():
        found = Instances((random_boxes.HEIGHT, random_boxes.WIDTH))
        found.pred_classes = torch.tensor([label for label, _ in objects], dtype=torch.int64)
        found.scores = torch.ones(len(objects))
        points = torch.tensor([p for _, p in objects], dtype=torch.float64).reshape(-1, 3, 3)
        found.pred_boxes = Boxes(torch.cat([points[:, 0, :2], points[:, 2, :2]], dim=1))
        found.pred_keypoints = points + torch.tensor([0.5, 0.5, 0])  # COCO has pixel indices
        outputs.append(({"image_id": image_id}, {"instances": found}))
    evaluator = COCOEvaluator(NAME, ("keypoints",), kpt_oks_sigmas=[0.1] * 3)
    assert evaluate(evaluator, outputs)["keypoints"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("fast", [True, False])
def test_the_log_says_which_package_evaluated(register, caplog, fast):
    pytest.importorskip("hotcoco")
    rng = np.random.default_rng(0)
    data = random_boxes.ground_truth(rng, images=2, categories=3, objects=2, crowds=False)
    register(data)
    with caplog.at_level(logging.DEBUG, logger="brloss_d2"):
        evaluate(COCOEvaluator(NAME, use_fast_impl=fast), random_boxes.detections(rng, data, 3))
    own = [r.getMessage() for r in caplog.records if r.name.startswith("brloss_d2")]
    line, *_ = own
    assert line.startswith("COCO-style evaluation by " + ("hotcoco" if fast else "pycocotools"))


@pytest.mark.parametrize("max_dets", [None, 300])
def test_hotcoco_leaves_the_official_package_alone(register, monkeypatch, max_dets):
    pytest.importorskip("hotcoco")
    monkeypatch.setattr(COCOeval, "evaluate", None)
    rng = np.random.default_rng(0)
    data = random_boxes.ground_truth(rng, images=3, categories=3, objects=2, crowds=False)
    register(data)
    pairs = random_boxes.detections(rng, data, 9)
    assert evaluate(COCOEvaluator(NAME, max_dets_per_image=max_dets), pairs)["bbox"]["AP"] > 0


def test_without_hotcoco_the_official_package_evaluates(register, monkeypatch, caplog):
    monkeypatch.setattr("brloss_d2.evaluation.protocols.hotcoco", None)
    rng = np.random.default_rng(0)
    data = random_boxes.ground_truth(rng, images=3, categories=3, objects=2, crowds=False)
    register(data)
    with caplog.at_level(logging.DEBUG, logger="brloss_d2"):
        results = evaluate(COCOEvaluator(NAME), random_boxes.detections(rng, data, 3))
    assert results["bbox"]["AP"] > 0
    assert any("evaluation by pycocotools" in r.getMessage() for r in caplog.records)
    assert not any("hotcoco" in r.getMessage() for r in caplog.records)
