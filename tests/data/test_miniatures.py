import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data.datasets import load_coco_json
from detectron2.data.datasets.cityscapes import load_cityscapes_instances
from PIL import Image

from brloss_d2.data import check_coco_json, write_miniatures
from brloss_d2.errors import InputError

pytest.importorskip("cityscapesscripts")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "miniatures"
    write_miniatures(root, train=5, val=3)
    return root


def read(path):
    return json.loads(path.read_text())


def test_layout(root):
    assert sorted(str(p.relative_to(root)) for p in root.glob("*/*")) == [
        "cityscapes/gtFine",
        "cityscapes/leftImg8bit",
        "coco/annotations",
        "coco/train2017",
        "coco/val2017",
        "lvis/lvis_v1_train.json",
        "lvis/lvis_v1_val.json",
    ]
    assert [p.name for p in root.parent.iterdir()] == ["miniatures"], "no temporary folders"
    city = root / "cityscapes/gtFine/val/frankfurt"
    suffixes = ("color.png", "instanceIds.png", "labelIds.png", "polygons.json")
    names = [f"frankfurt_{n:06d}_000019_gtFine_{s}" for n in range(3) for s in suffixes]
    assert sorted(p.name for p in city.iterdir()) == names


def test_coco_has_all_categories_and_a_crowd(root):
    for split, images in (("train", 5), ("val", 3)):
        file = root / f"coco/annotations/instances_{split}2017.json"
        folder = root / f"coco/{split}2017"
        summary = check_coco_json(str(file), str(folder))
        assert (summary.num_classes, summary.images, summary.crowd) == (80, images, 1)
        assert summary.boxes > images and not any(summary.dropped.values())
        # detectron2 compares the categories with the official ones.
        records = load_coco_json(str(file), str(folder), "coco_2017_val")
        (crowd,) = (a for r in records for a in r["annotations"] if a["iscrowd"])
        mask = mask_util.decode(crowd["segmentation"])
        assert mask[:32, :42].all() and mask.sum() == 32 * 42


def test_lvis_names_its_images_by_url(root):
    train, val = (read(root / f"lvis/lvis_v1_{split}.json") for split in ("train", "val"))
    assert len(train["categories"]) == len(val["categories"]) == 1203
    folders = [image["coco_url"].split("/")[-2] for image in val["images"]]
    assert sorted(folders) == ["train2017", "val2017", "val2017", "val2017"]
    assert not {i["id"] for i in train["images"]} & {i["id"] for i in val["images"]}
    for content in (train, val):
        for image in content["images"]:
            path = root / "coco" / "/".join(image["coco_url"].split("/")[-2:])
            assert Image.open(path).size == (image["width"], image["height"])
        for category in content["categories"]:
            found = [a for a in content["annotations"] if a["category_id"] == category["id"]]
            assert category["instance_count"] == len(found)
            assert category["image_count"] == len({a["image_id"] for a in found})
        seen = {c["frequency"] for c in content["categories"] if c["instance_count"]}
        assert seen == set("rcf")
    negative = {i["id"]: set(i["neg_category_ids"]) for i in train["images"]}
    assert all(a["category_id"] not in negative[a["image_id"]] for a in train["annotations"])
    assert any(negative.values())
    assert any(image["not_exhaustive_category_ids"] for image in train["images"])


def test_cityscapes_ids_agree_with_polygons(root):
    folders = [str(root / f"cityscapes/{kind}/train") for kind in ("leftImg8bit", "gtFine")]
    drawn, read_back = (
        {
            record["file_name"]: sorted(
                (a["category_id"], a["iscrowd"]) for a in record["annotations"]
            )
            for record in load_cityscapes_instances(*folders, **kind)
        }
        for kind in ({"from_json": False, "to_polygons": False}, {"from_json": True})
    )
    assert drawn == read_back and sum(map(len, drawn.values())) > 5
    crowds = [is_crowd for objects in drawn.values() for _, is_crowd in objects]
    assert sum(crowds) == 1
    file = next((root / "cityscapes/gtFine/train/aachen").glob("*_instanceIds.png"))
    ids = np.asarray(Image.open(file))
    labels = np.asarray(Image.open(str(file).replace("instanceIds", "labelIds")))
    assert ids.dtype == np.uint16
    assert np.array_equal(np.where(ids >= 1000, ids // 1000, ids), labels)


def test_equal_arguments_equal_files(root, tmp_path):
    write_miniatures(tmp_path / "again", train=5, val=3)
    files = sorted(p.relative_to(root) for p in root.rglob("*.*") if p.is_file())
    assert len(files) == 8 + 4 + 8 * 5
    for file in files:
        assert (root / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_never_writes_into_a_folder_in_use(tmp_path):
    (tmp_path / "coco").mkdir()
    with pytest.raises(InputError, match="is in use"):
        write_miniatures(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["coco"]
    (tmp_path / "empty").mkdir()
    write_miniatures(tmp_path / "empty", train=2, val=2, size=(64, 64))
    assert (tmp_path / "empty" / "lvis").is_dir()


@pytest.mark.parametrize("bad", [{"train": 1}, {"val": 0}, {"size": (64, 32)}, {"seed": -1}])
def test_bad_numbers(tmp_path, bad):
    with pytest.raises(InputError, match="Expected at least"):
        write_miniatures(tmp_path / "a", **bad)


def test_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="Cannot write to"):
        write_miniatures(tmp_path / "file" / "a")
