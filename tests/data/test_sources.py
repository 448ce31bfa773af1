"""`data.train` and `data.val` that are folders."""

import json
import shutil
from pathlib import Path

import pytest
from detectron2.config import instantiate
from omegaconf import OmegaConf

from brloss_d2.data import CustomData, apply_custom_data
from brloss_d2.errors import InputError
from tests.data.test_folders import ROW, YAML, coco, image, text, xml


@pytest.fixture
def cfg(tmp_path):
    dataset = {"names": "coco"}
    return OmegaConf.create(
        {
            "model": {"num_classes": 80},
            "dataloader": {"train": {"dataset": dataset}, "test": {"dataset": dataset}},
            "train": {"output_dir": str(tmp_path / "run")},
        }
    )


def yolo(folder: Path, names=("a", "b", "c")) -> str:
    for name in names:
        image(folder / f"images/{name}.jpg")
        text(folder / f"labels/{name}.txt", ROW)
    text(folder / "data.yaml", YAML)
    return str(folder)


def voc(folder: Path, *classes: str) -> str:
    for name in classes:
        image(folder / f"{name}.jpg")
        text(folder / f"{name}.xml", xml((name, (1, 1, 9, 9)), name=""))
    return str(folder)


def refused(cfg, data: CustomData) -> str:
    before = OmegaConf.to_yaml(cfg)
    with pytest.raises(InputError) as error:
        apply_custom_data(cfg, data)
    assert OmegaConf.to_yaml(cfg) == before  # nothing half-done
    assert not Path(cfg.train.output_dir).exists()
    return str(error.value)


def test_a_folder_is_the_training_data(tmp_path, cfg):
    summary = apply_custom_data(cfg, CustomData(train=yolo(tmp_path / "set")))
    assert not Path(summary.train.json_file).exists()
    summary.write_split()
    records = instantiate(cfg.dataloader.train.dataset)
    assert records[0]["file_name"] == str(tmp_path / "set/images/a.jpg")
    assert records[0]["annotations"][0]["category_id"] == 1 and cfg.model.num_classes == 2
    lines = str(summary).split("\n")
    assert "Note: data.train: recognized as YOLO." in lines
    assert f"As COCO files: {summary.train.json_file}." in lines
    assert [line.split() for line in lines if "bolt" in line] == [
        ["boxes", "of", "bolt", "(id", "1)", "3"]
    ]


def test_a_folder_has_validation_data(tmp_path, cfg):
    for split in ("train", "valid"):
        yolo(tmp_path / "set" / split, names=(f"{split}_1", f"{split}_2"))
    shutil.move(tmp_path / "set/valid/data.yaml", tmp_path / "set/data.yaml")
    summary = apply_custom_data(cfg, CustomData(train=str(tmp_path / "set")))
    assert summary.train.images == summary.val.images == 2
    assert {Path(file).parent.parent.name for file in summary.val.image_sizes} == {"valid"}
    data = CustomData(train=str(tmp_path / "set"), val_fraction=0.5)
    assert "it has a split for validation: leave data.val_fraction out" in refused(cfg, data)
    data = CustomData(train=str(tmp_path / "set/train"), val=str(tmp_path / "set"))
    assert apply_custom_data(cfg, data).val.images == 2


def test_a_fraction_of_a_folder(tmp_path, cfg):
    """Copies of one image, as Roboflow makes them, stay together."""
    names = [f"{name}_jpg.rf.{number}" for name in "abcdefghij" for number in range(3)]
    data = CustomData(train=yolo(tmp_path / "set", names), val_fraction=0.2)
    found = [apply_custom_data(cfg, data) for _ in range(2)]
    assert found[0].to_write == found[1].to_write
    train, val = (
        {Path(file).name.partition("_")[0] for file in split.image_sizes}
        for split in (found[0].train, found[0].val)
    )
    assert (len(train), len(val)) == (8, 2) and not train & val
    assert (found[0].train.images, found[0].val.images) == (24, 6)
    cfg.train.output_dir = str(tmp_path / "other")
    assert apply_custom_data(cfg, data).val.image_sizes == found[0].val.image_sizes


def test_names_of_classes_agree(tmp_path, cfg):
    """Formats that do not number their classes take the numbers of the other data."""
    train, val = voc(tmp_path / "a", "bolt", "nut"), voc(tmp_path / "b", "nut", "screw")
    summary = apply_custom_data(cfg, CustomData(train=train, val=val))
    assert summary.categories == {1: "bolt", 2: "nut", 3: "screw"}
    assert summary.val.objects == {1: 0, 2: 1, 3: 1}
    summary = apply_custom_data(
        cfg, CustomData(train=yolo(tmp_path / "y"), val=voc(tmp_path / "c", "bolt"))
    )
    assert summary.categories == {0: "nut", 1: "bolt"} and summary.val.objects == {0: 0, 1: 1}
    coco(tmp_path / "d/val.json", root=False)
    summary = apply_custom_data(cfg, CustomData(train=train, val=str(tmp_path / "d/val.json")))
    assert summary.categories == {1: "nut", 2: "bolt"} and summary.train.objects == {1: 1, 2: 1}


def test_coco_folders_are_used_as_they_are(tmp_path, cfg):
    for split in ("train", "val"):
        coco(tmp_path / "set" / split / "labels.json", root=False)
    summary = apply_custom_data(cfg, CustomData(train=str(tmp_path / "set")))
    assert summary.val.json_file == str(tmp_path / "set/val/labels.json") and not summary.to_write


def test_images_elsewhere(tmp_path, cfg):
    folder = yolo(tmp_path / "set")
    shutil.move(tmp_path / "set/images", tmp_path / "pictures")
    data = CustomData(train=folder, train_images=str(tmp_path / "pictures"))
    assert apply_custom_data(cfg, data).train.image_root == str(tmp_path / "pictures")


@pytest.mark.parametrize("key", ["train", "val"])
def test_messages_name_the_folder(tmp_path, cfg, key):
    folder = yolo(tmp_path / "set")
    text(tmp_path / "set/labels/a.txt", "7 0.5 0.5 0.2 0.4")
    assert refused(cfg, CustomData(**{key: folder})).startswith(f"data.{key}={folder}: 1 of 3 lin")
    text(tmp_path / "set/labels/a.txt", "0 0.5 0.5 0 0.4\n0 0.5 0.5 0 0.4\n" * 2)
    assert refused(cfg, CustomData(**{key: folder})).startswith(f"data.{key}={folder}: most boxes")
    (tmp_path / "empty").mkdir()
    text_ = refused(cfg, CustomData(**{key: str(tmp_path / "empty")}))
    assert text_.startswith(f"data.{key}={tmp_path / 'empty'}: no labels of a known format")


def test_the_same_checks_as_for_coco(tmp_path, cfg):
    cfg.dataloader.train.mapper = {"use_instance_mask": True}
    folder = yolo(tmp_path / "set")
    assert "3 of 3 boxes have no 'segmentation'" in refused(cfg, CustomData(train=folder))
    for name in "abc":
        text(tmp_path / f"set/labels/{name}.txt", "0 0.1 0.1 0.5 0.1 0.5 0.9\n" * 2)
    summary = apply_custom_data(cfg, CustomData(train=folder))
    assert "3 of 6 boxes repeat another of the same image and class" in str(summary)


def test_a_split_that_is_not_there(tmp_path, cfg):
    for split in ("val", "test"):
        yolo(tmp_path / "set" / split)
    message = refused(cfg, CustomData(train=str(tmp_path / "set")))
    assert "has the splits val, test, and no train: name the folder of one of them" in message


def test_json_files_are_still_files(tmp_path, cfg):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([]))
    assert "not COCO format" in refused(cfg, CustomData(train=str(path)))
