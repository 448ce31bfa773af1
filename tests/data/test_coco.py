import logging

import pytest
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from brloss_d2.data import load_coco_dataset
from brloss_d2.errors import InputError
from tests.helpers import coco_files as files


def load(folder, data, name="test_own"):
    return load_coco_dataset(name, files.write(folder, data), str(folder))


def test_loads_records_and_metadata(tmp_path):
    records = load(tmp_path, files.content())
    assert [len(r["annotations"]) for r in records] == [1, 1, 0]  # the empty image is kept
    assert records[0]["file_name"] == str(tmp_path / "1.png")
    assert records[0]["annotations"][0]["bbox_mode"] == BoxMode.XYWH_ABS
    # Contiguous ids in the order of the category ids, 2 and 7.
    assert [r["annotations"][0]["category_id"] for r in records[:2]] == [0, 1]
    metadata = MetadataCatalog.get("test_own")
    assert metadata.thing_classes == ["bolt", "nut"]
    assert metadata.thing_dataset_id_to_contiguous_id == {2: 0, 7: 1}
    assert metadata.evaluator_type == "coco"
    assert metadata.json_file == str(tmp_path / "instances.json")
    assert metadata.image_root == str(tmp_path)


def test_drops_boxes_without_area_and_says_so(tmp_path, caplog):
    data = files.content()
    data["annotations"] += [
        files.annotation(8, 1, box=[4, 4, 0, 5]),
        files.annotation(9, 3, box=[4, 4, 5, 0]),
    ]
    with caplog.at_level(logging.WARNING):
        records = load(tmp_path, data)
    assert [len(r["annotations"]) for r in records] == [1, 1, 0]
    assert "test_own: dropped 2 boxes without area." in caplog.messages


def test_a_name_can_be_used_again_for_other_data(tmp_path):
    other = files.content()
    other["categories"][0]["name"] = "screw"
    load(tmp_path / "a", files.content())
    first = MetadataCatalog.get("test_own")
    load(tmp_path / "a", files.content())
    assert MetadataCatalog.get("test_own") is first  # an evaluator may hold it
    load(tmp_path / "b", other)
    assert MetadataCatalog.get("test_own").thing_classes == ["bolt", "screw"]


def test_refuses_missing_file_and_built_in_name(tmp_path):
    with pytest.raises(InputError, match=r"'x' are missing: /nowhere/x\.json"):
        load_coco_dataset("x", "/nowhere/x.json", "/nowhere")
    with pytest.raises(InputError, match="'coco_2017_val' belongs to a registered dataset"):
        load(tmp_path, files.content(), name="coco_2017_val")
