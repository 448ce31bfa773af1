"""A detector that finds exactly the ground truth has an AP of 100 under every evaluation."""

import math

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.data.datasets.builtin_meta import _get_builtin_metadata
from detectron2.data.datasets.cityscapes import load_cityscapes_instances
from detectron2.data.datasets.lvis import get_lvis_instances_meta, register_lvis_instances
from detectron2.structures import Boxes, BoxMode, Instances, polygons_to_bitmask

from brloss_d2.data import check_registered_dataset, write_miniatures
from brloss_d2.errors import InputError
from brloss_d2.evaluation import CityscapesEvaluator, COCOEvaluator, LVISEvaluator

pytest.importorskip("lvis")
pytest.importorskip("cityscapesscripts")
pytest.importorskip("shapely")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Miniatures, registered as detectron2 registers the real ones, under names of their own."""
    root = tmp_path_factory.mktemp("data") / "miniatures"
    write_miniatures(root)
    coco = str(root / "coco" / "annotations" / "instances_val2017.json")
    meta = _get_builtin_metadata("coco")
    register_coco_instances("mini_coco", meta, coco, str(root / "coco" / "val2017"))
    meta = get_lvis_instances_meta("lvis_v1")
    lvis = str(root / "lvis" / "lvis_v1_val.json")
    register_lvis_instances("mini_lvis_v1", meta, lvis, f"{root}/coco/")
    _register_cityscapes(root / "cityscapes")
    yield root
    for name in ("mini_coco", "mini_lvis_v1", "mini_cityscapes"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def _register_cityscapes(folder):
    folders = [str(folder / kind / "val") for kind in ("leftImg8bit", "gtFine")]
    DatasetCatalog.register(
        "mini_cityscapes",
        lambda: load_cityscapes_instances(*folders, from_json=False, to_polygons=False),
    )
    MetadataCatalog.get("mini_cityscapes").set(
        image_dir=folders[0],
        gt_dir=folders[1],
        evaluator_type="cityscapes_instance",
        **_get_builtin_metadata("cityscapes"),
    )


def evaluate(evaluator, name, *, masks=True):
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        evaluator.process([record], [{"instances": _found(record, masks)}])
    return evaluator.evaluate()


def _found(record, masks):
    size = record["height"], record["width"]
    objects = [a for a in record["annotations"] if not a.get("iscrowd", 0)]
    boxes = [BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in objects]
    pixels = [_mask(a["segmentation"], size) for a in objects]
    if objects and isinstance(objects[0]["segmentation"], dict):  # a box around whole pixels
        boxes = [mask_util.toBbox(a["segmentation"]) for a in objects]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    instances = Instances(size)
    instances.pred_boxes = Boxes(torch.tensor(np.array(boxes).reshape(-1, 4)))
    instances.scores = torch.linspace(0.9, 0.5, len(objects))
    instances.pred_classes = torch.tensor([a["category_id"] for a in objects], dtype=torch.int64)
    if masks:
        instances.pred_masks = torch.tensor(np.array(pixels).reshape(-1, *size))
    return instances


def _mask(segmentation, size):
    if isinstance(segmentation, dict):
        return mask_util.decode(segmentation).astype(bool)
    return polygons_to_bitmask([np.array(p) for p in segmentation], *size)


def test_coco(root):
    results = evaluate(COCOEvaluator("mini_coco"), "mini_coco")
    assert results["bbox"]["AP"] == results["segm"]["AP"] == pytest.approx(100)
    assert results["bbox"]["oLRP"] == pytest.approx(0, abs=1e-3)  # boxes are float32
    assert results["segm"]["oLRP"] == pytest.approx(0, abs=1e-3)


def test_lvis_with_each_frequency(root):
    results = evaluate(LVISEvaluator("mini_lvis_v1"), "mini_lvis_v1")
    for task in ("bbox", "segm"):
        for metric in ("AP", "APr", "APc", "APf"):
            assert results[task][metric] == pytest.approx(100)
        assert results[task]["oLRP"] == pytest.approx(0, abs=1e-3)


def test_cityscapes_both_ways(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluator = CityscapesEvaluator("mini_cityscapes", str(tmp_path / "out"))
    results = evaluate(evaluator, "mini_cityscapes")
    assert set(results) == {"bbox", "segm", "segm_cityscapes"}
    for task in results:
        assert results[task]["AP"] == pytest.approx(100), task
    assert results["bbox"]["oLRP"] == results["segm"]["oLRP"] == pytest.approx(0, abs=1e-3)
    assert {p.name for p in tmp_path.iterdir()} == {"out"}, "no matches.json"
    # Again, as after each epoch.
    again = CityscapesEvaluator("mini_cityscapes", str(tmp_path / "out"))
    assert str(evaluate(again, "mini_cityscapes")) == str(results)  # nan equals nan there


def test_cityscapes_notices_a_missing_object(root, tmp_path):
    evaluator = CityscapesEvaluator("mini_cityscapes", str(tmp_path))
    evaluator.reset()
    for record in DatasetCatalog.get("mini_cityscapes"):
        found = _found(record, masks=True)
        evaluator.process([record], [{"instances": found[1:]}])
    results = evaluator.evaluate()
    assert all(10 < results[task]["AP"] < 90 for task in ("bbox", "segm", "segm_cityscapes"))


def test_cityscapes_boxes_alone(root, tmp_path):
    evaluator = CityscapesEvaluator("mini_cityscapes", str(tmp_path), tasks=["bbox"])
    results = evaluate(evaluator, "mini_cityscapes", masks=False)
    assert set(results) == {"bbox"}
    assert results["bbox"]["AP"] == pytest.approx(100)
    with pytest.raises(InputError, match=r"dataloader\.evaluator\.tasks=\[bbox\]"):
        evaluate(
            CityscapesEvaluator("mini_cityscapes", str(tmp_path)), "mini_cityscapes", masks=False
        )


@pytest.mark.parametrize("name", ["mini_coco", "mini_lvis_v1", "mini_cityscapes"])
def test_a_detector_that_finds_nothing(root, tmp_path, name):
    """As a detector does after a few iterations, above a high score."""
    evaluators = {
        "mini_coco": lambda: COCOEvaluator(name),
        "mini_lvis_v1": lambda: LVISEvaluator(name),
        "mini_cityscapes": lambda: CityscapesEvaluator(name, str(tmp_path)),
    }
    evaluator = evaluators[name]()
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        evaluator.process([record], [{"instances": _found(record, masks=True)[:0]}])
    results = evaluator.evaluate()
    assert math.isnan(results["bbox"]["AP"])
    assert results["bbox"]["oLRP"] == results["bbox"]["oLRP_FN"] == 100
    assert math.isnan(results["bbox"]["score_threshold"])
    if name == "mini_cityscapes":
        assert results["segm_cityscapes"]["AP"] == 0


def test_ap_of_a_class_without_objects_is_nan(root, tmp_path):
    results = evaluate(CityscapesEvaluator("mini_cityscapes", str(tmp_path)), "mini_cityscapes")
    assert math.isnan(results["bbox"]["AP-train"])


@pytest.mark.parametrize("name", ["mini_coco", "mini_lvis_v1", "mini_cityscapes"])
def test_the_checks_accept_the_miniatures(root, name):
    check_registered_dataset(name)
