"""Bootstrap intervals: samples of images are evaluated exactly as if they were a test set."""

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools.coco import COCO

from brloss_d2.evaluation import Evaluation, evaluate_detections
from brloss_d2.evaluation.protocols import renumber_annotations
from comparison import tested
from comparison.intervals import bootstrap, interval, resampled_ap
from tests.helpers import random_boxes

IMAGES, CLASSES = 6, 3


def box(rng: np.random.Generator) -> list[float]:
    return [*rng.uniform(0, 60, 2), *rng.uniform(10, 40, 2)]


def objects_and_detections(seed: int) -> tuple[list[dict], list[dict]]:
    """Objects, crowds among them, and detections near them and elsewhere.

    Equal scores are of different images.
    """
    rng = np.random.default_rng(seed)
    objects, found = [], []
    for image in range(IMAGES):
        for _ in range(rng.integers(1, 6)):
            place, label = box(rng), int(rng.integers(CLASSES))
            crowd = int(rng.random() < 0.1)
            record = {"image_id": image, "category_id": label + 1, "bbox": place}
            objects.append({**record, "area": place[2] * place[3], "iscrowd": crowd})
            for _ in range(rng.integers(0, 3)):
                near = (np.array(place) + rng.normal(0, 3, 4)).tolist()
                found.append({**record, "bbox": near, "score": round(rng.random(), 1)})
        other = int(rng.integers(CLASSES)) + 1
        found.append({"image_id": image, "category_id": other, "bbox": box(rng), "score": 0.5})
        own = [record for record in found if record["image_id"] == image]
        for number, record in enumerate(own):
            record["score"] += number / 1000
    return objects, found


def evaluated(objects: list[dict], found: list[dict], images: list[int]) -> Evaluation:
    """Evaluation of images, of which some may be the same: copies are numbered."""
    truth = COCO()
    copies = list(enumerate(images))
    truth.dataset = {
        "images": [{"id": number, "height": 100, "width": 100} for number, _ in copies],
        "categories": [{"id": label + 1, "name": str(label)} for label in range(CLASSES)],
        "annotations": [
            {**record, "image_id": number}
            for number, image in copies
            for record in objects
            if record["image_id"] == image
        ],
    }
    renumber_annotations(truth)
    results = [
        {**record, "image_id": number}
        for number, image in copies
        for record in found
        if record["image_id"] == image
    ]
    return evaluate_detections(truth, results, "bbox")


def class_ap(evaluation: Evaluation) -> np.ndarray:
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
    return np.where((precision > -1).all(axis=(0, 1)), precision.mean(axis=(0, 1)), np.nan)


@pytest.mark.parametrize("seed", range(3))
def test_samples_agree_with_evaluations_of_their_images(seed):
    objects, found = objects_and_detections(seed)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(IMAGES, size=(8, IMAGES)).tolist()
    samples = [list(range(IMAGES)), *map(sorted, drawn)]
    counts = [Counter(sample) for sample in samples]
    weights = np.array([[count[image] for image in range(IMAGES)] for count in counts], float)
    whole = evaluated(objects, found, list(range(IMAGES)))
    expected = [class_ap(evaluated(objects, found, sample)) for sample in samples]
    np.testing.assert_allclose(resampled_ap(whole, weights), expected, atol=1e-12)
    assert np.nanmean(expected[0]) == pytest.approx(whole.stats[0], abs=1e-12)


def test_images_and_seeds_are_drawn_for_all_losses_alike():
    runs = {seed: evaluated(*objects_and_detections(7), list(range(IMAGES))) for seed in (1, 2)}
    objects, found = objects_and_detections(7)
    worse = evaluated(objects, [x for x in found if x["image_id"] % 2], list(range(IMAGES)))
    groups = {"AP": range(CLASSES), "AP rare": [1]}
    drawn = bootstrap({"a": runs, "b": runs, "c": {1: runs[1], 2: worse}}, groups, samples=200)
    np.testing.assert_array_equal(drawn["a"]["AP"], drawn["b"]["AP"])
    assert set(drawn["c"]) == set(groups) and drawn["c"]["AP"].shape == (200,)
    low, high = interval(drawn["a"]["AP"])
    assert low < runs[1].stats[0] < high
    of_a, of_c = drawn["a"]["AP"], drawn["c"]["AP"]
    assert (of_c <= of_a + 1e-12).mean() > 0.9
    # A quarter of the samples of two seeds has the first seed twice.
    assert 0.1 < np.isclose(of_a, of_c, atol=1e-12).mean() < 0.5


def test_samples_without_objects_are_left_out():
    low, high = interval(np.array([np.nan, *np.linspace(0, 1, 201)]))
    assert (low, high) == pytest.approx((0.025, 0.975))


def test_a_run_that_has_found_nothing_takes_the_intervals_of_its_loss(monkeypatch, tmp_path):
    path = tmp_path / "truth.json"
    rng = np.random.default_rng(0)
    truth = random_boxes.ground_truth(rng, images=4, categories=2, objects=3, crowds=False)
    path.write_text(json.dumps(truth))
    keys = ("image_id", "category_id", "bbox")
    perfect = [{**{key: a[key] for key in keys}, "score": 0.5} for a in truth["annotations"]]
    monkeypatch.setattr(tested, "detections", lambda run: perfect * (run.seed < 3))
    runs = [SimpleNamespace(loss=loss, seed=s) for loss, s in (("ce", 1), ("rs", 1), ("rs", 3))]
    found = tested.intervals(runs, "ce", str(path), 100)
    assert list(found) == ["ce"] and found["ce"]["AP"][1] == pytest.approx(100)


@pytest.mark.parametrize("reference", ["focal", "rs"])
def test_differences_are_those_to_the_reference(monkeypatch, tmp_path, reference):
    """A loss without runs is not replaced by the next one."""
    path = tmp_path / "truth.json"
    path.write_text(
        json.dumps(
            random_boxes.ground_truth(
                np.random.default_rng(0), images=2, categories=2, objects=3, crowds=False
            )
        )
    )
    drawn = {"rs": {"AP": np.array([0.25, 0.5])}, "brs": {"AP": np.array([0.5, 0.75])}}
    monkeypatch.setattr(tested, "bootstrap", lambda *_: drawn)
    monkeypatch.setattr(tested, "detections", lambda _: [{}])
    monkeypatch.setattr(tested, "evaluate_detections", lambda *_, **options: None)
    runs = [SimpleNamespace(loss=loss, seed=1) for loss in drawn]
    other_seed = [runs[0], SimpleNamespace(loss="brs", seed=2)]
    assert tested.DIFFERENCE not in tested.intervals(other_seed, reference, str(path), 100)["brs"]
    found = tested.intervals(runs, reference, str(path), 100)
    assert [tested.DIFFERENCE in found[loss] for loss in drawn] == [reference == "rs"] * 2
    if reference == "rs":
        assert found["rs"][tested.DIFFERENCE] == (0, 0)
        assert found["brs"][tested.DIFFERENCE] == pytest.approx((25, 25))
