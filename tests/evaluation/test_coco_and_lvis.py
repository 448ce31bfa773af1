"""The evaluators of COCO and LVIS: the fast implementation finds what the official one finds."""

import json
import logging
import sys

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from pycocotools.cocoeval import COCOeval

from brloss_d2.evaluation import COCOEvaluator, LVISEvaluator
from tests.helpers import random_boxes

NAME = "test_evaluation"


@pytest.fixture
def register(tmp_path):
    """Write ground truth and register it for the time of a test."""

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
    pytest.importorskip("faster_coco_eval")
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
    pytest.importorskip("faster_coco_eval")
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


@pytest.mark.parametrize("fast", [True, False])
def test_the_log_says_which_implementation_ran(register, caplog, fast):
    pytest.importorskip("faster_coco_eval")
    rng = np.random.default_rng(0)
    data = random_boxes.ground_truth(rng, images=2, categories=3, objects=2, crowds=False)
    register(data)
    with caplog.at_level(logging.INFO, logger="brloss_d2"):
        evaluate(COCOEvaluator(NAME, use_fast_impl=fast), random_boxes.detections(rng, data, 3))
    own = [r.getMessage() for r in caplog.records if r.name.startswith("brloss_d2")]
    line, *_ = own
    assert line.startswith("COCO-style evaluation by " + ("faster" if fast else "pycocotools"))


@pytest.mark.parametrize("max_dets", [None, 300])
def test_the_fast_implementation_leaves_the_official_one_alone(register, monkeypatch, max_dets):
    pytest.importorskip("faster_coco_eval")
    monkeypatch.setattr(COCOeval, "evaluate", None)
    rng = np.random.default_rng(0)
    data = random_boxes.ground_truth(rng, images=3, categories=3, objects=2, crowds=False)
    register(data)
    pairs = random_boxes.detections(rng, data, 9)
    assert evaluate(COCOEvaluator(NAME, max_dets_per_image=max_dets), pairs)["bbox"]["AP"] > 0


def test_without_faster_coco_eval_the_official_one_is_used(register, monkeypatch):
    monkeypatch.setattr("brloss_d2.evaluation.implementation.COCOeval_faster", None)
    rng = np.random.default_rng(0)
    data = random_boxes.ground_truth(rng, images=3, categories=3, objects=2, crowds=False)
    register(data)
    before = set(sys.modules)
    results = evaluate(COCOEvaluator(NAME), random_boxes.detections(rng, data, 3))
    assert results["bbox"]["AP"] > 0
    assert not any(name.startswith("faster_coco_eval") for name in set(sys.modules) - before)
