import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.data import MetadataCatalog, get_detection_dataset_dicts
from omegaconf import OmegaConf
from PIL import Image

from brloss_d2.data import load_coco_dataset
from brloss_d2.errors import InputError
from brloss_d2.evaluation.lrp import best_f1_threshold
from brloss_d2.evaluation.run import EvaluatedRun, best_threshold

BOX = [2.0, 3.0, 10.0, 8.0]


def write_run(folder: Path, results, *, images: int = 3) -> str:
    """An output folder of a run whose every image but the last has one box of category 4."""
    truth = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": 20, "width": 30}
            for i in range(1, 1 + images)
        ],
        "categories": [{"id": 4, "name": "nut"}, {"id": 9, "name": "bolt"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 4, "bbox": BOX, "area": 80.0, "iscrowd": 0}
            for i in range(1, images)
        ],
    }
    for record in truth["images"]:
        Image.new("RGB", (30, 20), "gray").save(folder / record["file_name"])
    (folder / "truth.json").write_text(json.dumps(truth))
    node = L(load_coco_dataset)(
        names="test_run", json_file=str(folder / "truth.json"), image_root=str(folder)
    )
    save_config(folder, node)
    (folder / "inference").mkdir()
    write_results(folder, results)
    return str(folder)


def save_config(folder: Path, node) -> None:
    cfg = OmegaConf.create(
        {"dataloader": {"test": {"dataset": node}}}, flags={"allow_objects": True}
    )
    LazyConfig.save(cfg, str(folder / "config.yaml"))


def write_results(folder: Path, results) -> None:
    text = results if isinstance(results, str) else json.dumps(results)
    (folder / "inference" / "coco_instances_results.json").write_text(text)


def detection(image, score, *, box=BOX, category=4):
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def test_loads_a_run(tmp_path):
    run = EvaluatedRun.load(write_run(tmp_path, [detection(1, 0.9)]))
    assert len(run.records) == 3
    assert run.class_names == ["nut", "bolt"]
    assert run.class_ids == {4: 0, 9: 1}
    assert run.json_file == str(tmp_path / "truth.json")


def test_pairs_tell_the_errors_and_a_crowd_is_none(tmp_path):
    results = [detection(1, 0.9), detection(1, 0.8), detection(2, 0.7, category=9)]
    write_run(tmp_path, [*results, detection(2, 0.6, box=[15.0, 3.0, 5.0, 5.0])])
    truth = json.loads((tmp_path / "truth.json").read_text())
    crowd = {"bbox": [14.0, 0.0, 16.0, 20.0], "area": 320.0, "iscrowd": 1}
    rle = {"size": [20, 30], "counts": [280, 320]}
    crowd |= {"id": 9, "image_id": 2, "category_id": 4, "segmentation": rle}
    truth["annotations"].append(crowd)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    first, second = EvaluatedRun.load(str(tmp_path)).pairs(5, threshold=0.5)
    assert first.ground_truth.wrong.tolist() == [False]
    assert first.predictions.wrong.tolist() == [True, False]  # by score, the best last
    assert second.ground_truth.wrong.tolist() == [True, False]
    assert second.predictions.wrong.tolist() == [False, True]
    assert first.predictions.masks is None


def test_pairs_have_masks_if_the_detections_do(tmp_path):
    rle = {"size": [20, 30], "counts": [100, 500]}
    run = EvaluatedRun.load(write_run(tmp_path, [{**detection(1, 0.9), "segmentation": rle}]))
    (first, *_) = run.pairs(5, threshold=0.5)
    assert first.predictions.masks[0]["size"] == [20, 30]
    assert first.ground_truth.masks is None  # as the annotations
    write_results(tmp_path, [{**detection(1, 0.9), "segmentation": {**rle, "counts": [1]}}])
    with pytest.raises(InputError, match="RLE counts add up to 1 of 600"):
        EvaluatedRun.load(str(tmp_path)).pairs(5, threshold=0.5)


def test_the_worst_images_come_first(tmp_path):
    results = [detection(2, 0.9, category=9), detection(3, 0.8), detection(4, 0.9, category=9)]
    results += [detection(3, 0.6, box=[15.0, 3.0, 5.0, 5.0]), detection(4, 0.95, category=9)]
    run = EvaluatedRun.load(write_run(tmp_path, [*results, detection(5, 0.2)], images=5))
    pairs = run.worst_pairs(9, threshold=0.5)
    # 4: two false, one missed; 2: one of each; 3: one false; 1: one missed; 5: below the threshold.
    assert [Path(pair.file_name).stem for pair in pairs] == ["4", "2", "3", "1"]
    assert [pair.errors for pair in pairs] == [(1, 2), (1, 1), (0, 1), (1, 0)]
    assert [pair.file_name for pair in run.worst_pairs(2, 0.5)] == [p.file_name for p in pairs[:2]]
    assert run.worst_pairs(9, threshold=0.99)[0].errors == (1, 0)


def test_masks_decide_what_is_false_if_they_are_analyzed(tmp_path):
    def mask(left):
        return {"size": [20, 30], "counts": [20 * left, 100, 500 - 20 * left]}

    write_run(tmp_path, [{**detection(1, 0.9), "segmentation": mask(10)}])
    truth = json.loads((tmp_path / "truth.json").read_text())
    for annotation in truth["annotations"]:
        annotation["segmentation"] = mask(2)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    run = EvaluatedRun.load(str(tmp_path))
    assert [pair.errors for pair in run.pairs(1, 0.5, task="bbox")] == [(0, 0)]
    assert [pair.errors for pair in run.pairs(1, 0.5, task="segm")] == [(1, 1)]
    assert run.worst_pairs(1, 0.5, task="segm")[0].predictions.masks is not None


def test_pairs_show_what_passes_the_threshold(tmp_path):
    results = [detection(1, 0.9, category=9), detection(1, 0.5), detection(1, 0.4)]
    pairs = EvaluatedRun.load(write_run(tmp_path, results)).pairs(5, threshold=0.5)
    assert [Path(pair.file_name).name for pair in pairs] == ["1.png", "2.png"]  # 3 has no objects
    first, second = pairs
    assert first.ground_truth.boxes.tolist() == [[2.0, 3.0, 12.0, 11.0]]
    assert first.ground_truth.scores is None
    assert first.predictions.scores.tolist() == [0.5, 0.9]
    assert first.predictions.labels.tolist() == [0, 1]
    assert second.predictions.boxes.shape == (0, 4)


def test_pairs_are_spread_over_the_data_set(tmp_path):
    run = EvaluatedRun.load(write_run(tmp_path, [], images=10))
    names = [Path(pair.file_name).stem for pair in run.pairs(3, threshold=0.5)]
    assert names == ["1", "5", "9"]


def test_threshold_maximises_f1(tmp_path):
    wrong = [20.0, 10.0, 5.0, 5.0]
    results = [
        detection(1, 0.9),
        detection(2, 0.7),
        detection(2, 0.6, category=9),  # a false alarm: another class
        detection(3, 0.8, box=wrong),
        detection(4, 0.3),
        detection(4, 0.2, box=wrong),
    ]
    run = EvaluatedRun.load(write_run(tmp_path, results, images=5))
    # 4 objects; F1 at 0.9: 2/5, 0.8: 2/6, 0.7: 4/7, 0.6: 4/8, 0.3: 6/9, 0.2: 6/10.
    assert best_threshold(run, best_f1_threshold) == pytest.approx(0.3)


def test_equal_scores_pass_together(tmp_path):
    """A prefix that ends within a tie is no threshold, however good it would be."""
    wrong = [20.0, 10.0, 5.0, 5.0]
    results = [detection(1, 0.8), detection(2, 0.5)]
    results += [detection(i, 0.5, box=wrong) for i in (1, 2, 3, 3)]
    run = EvaluatedRun.load(write_run(tmp_path, results))
    # 2 objects; at 0.8: 2/3; at 0.5: 4/8, though its first detection alone would make 4/4.
    assert best_threshold(run, best_f1_threshold) == pytest.approx(0.8)


@pytest.mark.parametrize("results", [[], [detection(3, 0.9)]])
def test_threshold_without_anything_correct(tmp_path, results):
    assert best_threshold(EvaluatedRun.load(write_run(tmp_path, results))) == 0.5


def test_threshold_against_every_choice(tmp_path):
    rng = np.random.default_rng(0)
    results = [detection(int(i), float(s)) for i, s in zip(range(1, 8), rng.random(7), strict=True)]
    results += [detection(9, float(s)) for s in rng.random(6)]  # image 9 has no objects
    run = EvaluatedRun.load(write_run(tmp_path, results, images=9))

    def f1(threshold):
        kept = [r for r in results if r["score"] >= threshold]
        return 2 * sum(r["image_id"] < 9 for r in kept) / (len(kept) + 8)

    assert f1(best_threshold(run, best_f1_threshold)) == max(f1(r["score"]) for r in results)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda f: (f / "config.yaml").unlink(), r"config\.yaml does not exist: expected the out"),
        (lambda f: (f / "config.yaml").write_text("a: 1"), r"has no dataloader\.test\.dataset"),
        (lambda f: (f / "config.yaml").write_text("a: ["), r"config\.yaml is not valid YAML"),
        (
            lambda f: (f / "config.yaml").write_bytes(b"\xff\xfea"),
            r"config\.yaml is not valid YAML",
        ),
        (
            lambda f: (f / "inference" / "coco_instances_results.json").unlink(),
            r"results\.json does not exist: evaluate first",
        ),
        (lambda f: write_results(f, "[1,"), "not valid JSON"),
        (lambda f: write_results(f, {"AP": 3}), "is not a list of COCO detections"),
        (lambda f: write_results(f, [{"image_id": 1}]), "is not a list of COCO detections"),
        (lambda f: write_results(f, [detection(1, 0.5) | {"bbox": [1, 2, 3]}]), "damaged detec"),
        (lambda f: write_results(f, [detection(1, 0.5) | {"bbox": "abc"}]), "damaged detections"),
        (lambda f: write_results(f, [detection(1, 0.5) | {"image_id": [1]}]), "damaged detec"),
        (lambda f: write_results(f, [detection(1, float("nan"))]), "damaged detections"),
        (lambda f: write_results(f, [detection(77, 0.5)]), "predictions for 1 images that"),
        (lambda f: write_results(f, [detection(1, 0.5, category=5)]), "categories that"),
        (lambda f: (f / "truth.json").unlink(), "'test_run' are missing"),
        (
            lambda f: save_config(f, L(get_detection_dataset_dicts)(names="coco_2017_vall")),
            "no dataset named 'coco_2017_vall'",
        ),
    ],
)
def test_bad_folders(tmp_path, spoil, expected):
    folder = write_run(tmp_path, [detection(1, 0.9)])
    spoil(tmp_path)
    with pytest.raises(InputError, match=expected):
        EvaluatedRun.load(folder)


def _records_of_another_format(names, json_file):
    MetadataCatalog.get(names).thing_classes = ["nut"]
    return []


def test_a_data_set_in_another_format_is_refused(tmp_path):
    node = L(_records_of_another_format)(names="test_other_format", json_file="")
    (tmp_path / "inference").mkdir()
    save_config(tmp_path, node)
    write_results(tmp_path, [detection(1, 0.5)])
    with pytest.raises(InputError, match="test_other_format is not in COCO format"):
        EvaluatedRun.load(str(tmp_path))
