"""oLRP against its definition and against another package, on random sets, from boxes on."""

import json
from typing import Any

import numpy as np
import pytest

from brloss_d2.evaluation.lrp import OptimalLRP
from brloss_d2.evaluation.matches import match_detections
from brloss_d2.evaluation.protocols import evaluate_detections, read_ground_truth
from tests.helpers import paper_lrp, random_boxes

SETS = pytest.mark.parametrize(
    "seeds", [range(30), pytest.param(range(1000), marks=pytest.mark.nightly)], ids=len
)


def random_set(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Ground truth, 100 detections, and how many of them count per image and class.

    With crowds, a class and an image without objects, equal scores, equal boxes and full overlap.
    """
    rng = np.random.default_rng(seed)
    truth = random_boxes.ground_truth(rng, images=4, categories=5, objects=9, crowds=True)
    found: list[dict[str, Any]] = []
    digits = int(rng.choice([1, 2, 9]))
    for _ in range(100):
        image, category = int(rng.choice(truth["images"])["id"]), int(rng.integers(1, 6))
        box = random_boxes.draw_box(rng)
        if rng.random() < 0.8:
            near = truth["annotations"][rng.integers(len(truth["annotations"]))]
            image, box = near["image_id"], random_boxes.jitter(rng, np.array(near["bbox"]))
            category = near["category_id"] if rng.random() < 0.9 else category
        record = {"image_id": image, "category_id": category, "bbox": box.tolist()}
        found.append({**record, "score": round(rng.random(), digits)})
    return truth, found, int(rng.choice([4, 100]))


def ours(truth: dict[str, Any], found: list[dict[str, Any]], limit: int, folder) -> np.ndarray:
    path = folder / "truth.json"
    path.write_text(json.dumps(truth))
    api = read_ground_truth(str(path))
    evaluation = evaluate_detections(api, found, "bbox", limits=[1, 2, limit])
    return OptimalLRP.of(match_detections(evaluation)).rows()


@SETS
def test_equals_the_definition(seeds, tmp_path) -> None:
    for seed in seeds:
        truth, found, limit = random_set(seed)
        expected = [*paper_lrp.optimal_lrp(truth, found, limit=limit).values()]
        values = ours(truth, found, limit, tmp_path)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9, err_msg=f"seed {seed}")


@SETS
def test_equals_vernier(seeds, tmp_path) -> None:
    """Two conventions differ: the unit of the localization error, and 0 / 0.

    Its localization error is (1 - IoU) / (1 - tau), ours 1 - IoU as in the tables of the papers. Of
    a class without detections it calls the part of false positives 0, we undefined.
    """
    vernier = pytest.importorskip("vernier.instance")
    for seed in seeds:
        truth, found, limit = random_set(seed)
        report = vernier.optimal_lrp(
            *(json.dumps(part).encode() for part in (truth, found)),
            tau_grid=sorted({record["score"] for record in found}),
            max_dets_per_image=limit,
        )
        expected = np.array(
            [(c.olrp, c.olrp_loc / 2, c.olrp_fp, c.olrp_fn, c.tau) for c in report.per_class]
        )
        expected[np.isnan(expected[:, 4]), 2] = np.nan
        values = ours(truth, found, limit, tmp_path)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9, err_msg=f"seed {seed}")
