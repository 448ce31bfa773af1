"""tools/convert_data.py: what a folder contains, and its COCO files."""

import json

import pytest

from brloss_d2.data import read_coco
from tests.data.test_folders import ROW, YAML, coco, image, text
from tools import convert_data


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b", "c", "d"):
        image(tmp_path / f"set/images/{name}.jpg")
        text(tmp_path / f"set/labels/{name}.txt", f"{ROW}\n0 0.1 0.1 0.5 0.1 0.5 0.9")
    text(tmp_path / "set/data.yaml", YAML)
    return tmp_path / "set"


def test_a_folder_is_described(folder, capsys):
    assert convert_data.main([str(folder)]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert ["boxes", "of", "bolt", "(id", "1)", "4"] in [line.split() for line in lines]
    assert "Note: data.train: recognized as YOLO." in lines
    assert "Objects with masks: 4 of 8." in lines
    assert not [file for file in folder.parent.iterdir() if file != folder]


def test_a_folder_is_converted(folder, capsys):
    output = folder.parent / "coco"
    arguments = [str(folder), "--output", str(output), "--val-fraction", "0.25"]
    assert convert_data.main(arguments) == 0
    assert (
        f"data.val={output}/instances_val.json data.val_images={folder}" in capsys.readouterr().out
    )
    found = [read_coco(str(output / f"instances_{split}.json")) for split in ("train", "val")]
    assert [len(coco.images) for coco in found] == [3, 1]
    assert found[0].categories == {0: "nut", 1: "bolt"}
    before = (output / "instances_val.json").read_text()
    assert convert_data.main(arguments) == 1
    assert "instances_train.json exists: choose another --output" in capsys.readouterr().err
    assert (output / "instances_val.json").read_text() == before


def test_some_classes_are_kept(folder, capsys):
    output = folder.parent / "coco"
    assert convert_data.main([str(folder), "--classes", "bolt", "--output", str(output)]) == 0
    out = capsys.readouterr().out
    assert "bolt (id 1)" in out and "nut" not in out
    found = read_coco(str(output / "instances_train.json"))
    assert (found.categories, len(found.images)) == ({1: "bolt"}, 4)
    assert convert_data.main([str(folder), "--classes", "bolt", "nutt"]) == 1
    assert "There is no class nutt. Did you mean nut?" in capsys.readouterr().err
    assert convert_data.main([str(folder), "--classes", "7"]) == 1
    assert "There is no class 7. Its classes: nut, bolt." in capsys.readouterr().err


def test_all_splits_are_converted(tmp_path, capsys):
    for split in ("train", "valid", "test"):
        coco(tmp_path / "set" / split / "_annotations.coco.json")
    assert convert_data.main([str(tmp_path / "set"), "--output", str(tmp_path / "coco")]) == 0
    out = capsys.readouterr().out
    assert "test: 1 box in 1 image\n" in out and "the class nuts is the group" in out
    for split in ("train", "val", "test"):
        content = json.loads((tmp_path / f"coco/instances_{split}.json").read_text())
        assert [record["name"] for record in content["categories"]] == ["nut", "bolt"]
    assert convert_data.main([str(tmp_path / "set"), "--val-fraction", "0.2"]) == 1
    assert "it has splits (train, val, test): no --val-fraction" in capsys.readouterr().err


def test_bad_folders(tmp_path, capsys):
    assert convert_data.main([str(tmp_path)]) == 1
    assert f"error: {tmp_path}: no labels of a known format" in capsys.readouterr().err
    file = tmp_path / "labels.json"
    file.write_text("{}")
    assert convert_data.main([str(file)]) == 1
    assert f"error: {file}: expected a folder" in capsys.readouterr().err
    assert convert_data.main([str(tmp_path / "gone")]) == 1
    assert "gone: there is no such folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        convert_data.main([str(tmp_path), "--val-fraction", "2"])
