"""Files for the evaluation server of COCO: what it asks of them, and that they say the same."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from brloss_d2.errors import InputError
from brloss_d2.evaluation import COCOEvaluator, evaluate_detections, write_submission
from brloss_d2.evaluation.protocols import read_ground_truth
from tests.helpers import random_boxes

NAME = "test_submission"
IDS = [1, 18, 44, 90]  # with gaps, as in COCO
FILE = "detections_test-dev2017_rs-r50_results.json"


@pytest.fixture
def dataset(tmp_path: Path):
    """Write a dataset, with or without annotations, and register it for one test."""

    def write(data: dict[str, Any]) -> str:
        file = tmp_path / "image_info_test-dev2017.json"
        file.write_text(json.dumps(data))
        labels = {id_: label for label, id_ in enumerate(IDS)}
        MetadataCatalog.pop(NAME, None)
        MetadataCatalog.get(NAME).set(
            json_file=str(file),
            thing_classes=list("abcd"),
            thing_dataset_id_to_contiguous_id=labels,
        )
        return str(file)

    yield write
    MetadataCatalog.pop(NAME, None)


def annotated(rng: np.random.Generator) -> dict[str, Any]:
    data = random_boxes.ground_truth(rng, images=8, categories=4, objects=6, crowds=True)
    for record in data["annotations"]:
        record["category_id"] = IDS[record["category_id"] - 1]
    for category, id_ in zip(data["categories"], IDS, strict=True):
        category["id"] = id_
    return data


def detections(rng: np.random.Generator, data: dict[str, Any], count: int) -> list[Any]:
    """Labels of the model are 0 to 3, whatever the ids."""
    with_labels = {
        **data,
        "annotations": [
            {**a, "category_id": IDS.index(a["category_id"]) + 1} for a in data["annotations"]
        ],
    }
    return random_boxes.detections(rng, with_labels, count)


def evaluate(pairs: list[Any], output_dir: Path, **options: Any) -> dict[str, Any]:
    evaluator = COCOEvaluator(NAME, output_dir=str(output_dir), **options)
    evaluator.reset()
    for image, output in pairs:
        evaluator.process([image], [output])
    return evaluator.evaluate()


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_the_files_have_the_ap_of_the_evaluation(dataset, tmp_path: Path, task: str) -> None:
    rng = np.random.default_rng(0)
    file = dataset(data := annotated(rng))
    results = evaluate(detections(rng, data, 40), tmp_path / "out", submission="rs-r50")
    path = tmp_path / "out" / task / FILE
    official = COCOeval(COCO(file), COCO(file).loadRes(str(path)), task)
    official.evaluate()
    official.accumulate()
    official.summarize()
    again = evaluate_detections(read_ground_truth(file), json.loads(path.read_text()), task)
    assert 5 < results[task]["AP"] < 95, "the case says something"
    for number, metric in enumerate(("AP", "AP50", "AP75", "APs", "APm")):
        assert 100 * official.stats[number] == pytest.approx(results[task][metric], abs=1e-9)
        assert 100 * again.stats[number] == pytest.approx(results[task][metric], abs=1e-9)


def test_a_test_set_without_annotations(dataset, tmp_path: Path, caplog) -> None:
    rng = np.random.default_rng(1)
    dataset(data := annotated(rng))
    pairs = detections(rng, data, 130)
    evaluate(pairs, tmp_path / "known", submission="rs-r50")
    del data["annotations"]
    dataset(data)
    assert evaluate(pairs, tmp_path / "secret", submission="rs-r50") == {}
    for task in ("bbox", "segm"):
        text = (tmp_path / "secret" / task / FILE).read_text()
        assert text == (tmp_path / "known" / task / FILE).read_text()
    assert evaluate(pairs, tmp_path / "nothing") == {}
    assert "test.submission=NAME writes" in caplog.text
    assert not (tmp_path / "nothing" / "bbox").exists()


def test_what_the_server_asks_for(dataset, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    dataset(data := annotated(rng))
    pairs = detections(rng, data, 130)
    evaluate(pairs, tmp_path, submission="rs-r50")
    boxes, masks = (json.loads((tmp_path / t / FILE).read_text()) for t in ("bbox", "segm"))
    shared = {"image_id", "category_id", "score"}
    assert {frozenset(entry) for entry in boxes} == {frozenset(shared | {"bbox"})}
    assert {frozenset(entry) for entry in masks} == {frozenset(shared | {"segmentation"})}
    assert set(Counter(entry["image_id"] for entry in boxes).values()) == {100}
    assert {entry["category_id"] for entry in boxes} == set(IDS)
    assert all(round(x, 3) == x for entry in boxes for x in entry["bbox"])
    size = [random_boxes.HEIGHT, random_boxes.WIDTH]
    for entry in masks:
        assert entry["segmentation"]["size"] == size
        assert isinstance(entry["segmentation"]["counts"], str)
    for image, output in pairs:
        scores = np.sort(output["instances"].scores.numpy())[::-1][:100]
        kept = [entry["score"] for entry in boxes if entry["image_id"] == image["image_id"]]
        assert np.array_equal(np.float32(kept), scores), "the best, to the last bit"


def test_boxes_are_xywh_in_thousandths(tmp_path: Path) -> None:
    found = {"image_id": 7, "category_id": 90, "bbox": [1.0006, 2.0, 3.14159, 4.0], "score": 1 / 3}
    (path,) = write_submission([found], str(tmp_path), "a_b", json_file="/x/instances_val2017.json")
    assert os.path.relpath(path, tmp_path) == "bbox/detections_val2017_a_b_results.json"
    (entry,) = json.loads(Path(path).read_text())
    assert entry == {**found, "bbox": [1.001, 2.0, 3.142, 4.0], "score": 0.333333333}


@pytest.mark.parametrize("name", ["", "a/b", "_a", "a b", "ä", None])
def test_names_that_are_no_part_of_a_file_name(tmp_path: Path, name: Any) -> None:
    with pytest.raises(InputError, match=r"The name of the submission is .*: expected letters"):
        write_submission([], str(tmp_path), name, json_file="image_info_test-dev2017.json")
    assert not list(tmp_path.iterdir())
