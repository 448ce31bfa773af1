"""Folders in other formats: each test writes one layout or one mistake."""

import base64
import io
import json
import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from brloss_d2.data import read_folder
from brloss_d2.data.coco_file import read_coco
from brloss_d2.data.folders import voc
from brloss_d2.data.folders.tree import Tree
from brloss_d2.data.masks import to_rle
from brloss_d2.errors import InputError

WIDTH, HEIGHT = 40, 20
NAMES = ["nut", "bolt"]
ROW = "1 0.5 0.5 0.2 0.4"  # [16, 6, 8, 8]
POLYGON = "0 0.1 0.1 0.5 0.1 0.5 0.9"  # [4, 2, 16, 16]
YAML = "names: [nut, bolt]\n"


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), "gray").save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def xml(*objects: tuple, name: str = "a.jpg", size: str = "") -> str:
    found = "".join(
        f"<object><name>{label}</name>{more}<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for label, (x0, y0, x1, y1), *rest in objects
        for more in ["".join(rest)]
    )
    return f"<annotation><filename>{name}</filename>{size}{found}</annotation>"


def boxes(folder, split: str = "train") -> dict[str, list]:
    """Return file name -> class and box of each object."""
    part = read_folder(str(folder)).part(split)
    coco = read_coco("labels", content=part.content)  # its rules hold
    found = {record["file_name"]: [] for record in coco.images}
    names = {record["id"]: record["file_name"] for record in coco.images}
    for item in coco.annotations:
        box = [round(number, 3) for number in item["bbox"]]
        found[names[item["image_id"]]].append((coco.categories[item["category_id"]], box))
    return found


def refused(folder) -> str:
    with pytest.raises(InputError) as error:
        read_folder(str(folder))
    return str(error.value)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("", ""),
        ("images/", "labels/"),
        ("Images/", "Labels/"),
        ("obj_train_data/", "obj_train_data/"),
    ],
)
def test_yolo_without_splits(tmp_path, images, labels):
    for name in ("a", "b", "c"):
        image(tmp_path / f"{images}{name}.jpg")
    text(tmp_path / f"{labels}a.txt", f"{ROW}\n\n{POLYGON}\n")
    text(tmp_path / f"{labels}b.txt", "")
    text(tmp_path / "data.yaml", YAML)
    text(tmp_path / "README.txt", "of somebody")
    found = boxes(tmp_path)
    first = [("bolt", [16, 6, 8, 8]), ("nut", [4, 2, 16, 16])]
    assert found == {f"{images}a.jpg": first, f"{images}b.jpg": [], f"{images}c.jpg": []}


@pytest.mark.parametrize("pattern", ["{split}/{kind}", "{kind}/{split}"])
@pytest.mark.parametrize("val", ["val", "valid"])
@pytest.mark.parametrize("where", ["../{}", "/content/set/{}", "{}", r"C:\set\{}", None])
def test_yolo_with_splits(tmp_path, pattern, val, where):
    for split in ("train", val, "test"):
        for name in (f"{split}_1", f"{split}_2"):
            image(tmp_path / pattern.format(split=split, kind="images") / f"{name}.jpg")
            text(tmp_path / pattern.format(split=split, kind="labels") / f"{name}.txt", ROW)
    entries = ""
    for key, split in (("train", "train"), ("val", val), ("test", "gone")) if where else ():
        entries += f"{key}: {where.format(pattern.format(split=split, kind='images'))}\n"
    text(tmp_path / "data.yaml", YAML + entries)
    for split, folder in (("train", "train"), ("val", val)):
        path = pattern.format(split=folder, kind="images")
        found = [("bolt", [16, 6, 8, 8])]
        expected = {f"{path}/{folder}_{number}.jpg": found for number in (1, 2)}
        assert boxes(tmp_path, split) == expected
    if pattern == "{split}/{kind}":  # data.yaml above
        assert set(boxes(tmp_path / val)) == {f"images/{val}_{number}.jpg" for number in (1, 2)}


def test_yolo_with_lists_of_images(tmp_path):
    for name in "abc":
        image(tmp_path / "images" / f"{name}.jpg")
        text(tmp_path / "labels" / f"{name}.txt", ROW)
    text(tmp_path / "train.txt", "./images/a.jpg\n/elsewhere/images/b.jpg\n")
    text(tmp_path / "data.yaml", f"{YAML}path: /elsewhere\ntrain: train.txt\n")
    found = read_folder(str(tmp_path / "data.yaml"))
    assert [r["file_name"] for r in found.part("train").content["images"]] == [
        "images/a.jpg",
        "images/b.jpg",
    ]
    assert "1 image of no split, left out" in found.notes
    (tmp_path / "train.txt").write_text("images/a.jpg\ntrain.txt\n", encoding="utf-16")
    found = read_folder(str(tmp_path))
    assert len(found.part("train").content["images"]) == 1
    assert "missing, but listed: train.txt" in found.notes
    for entry in ("nowhere", "data.yaml"):
        text(tmp_path / "data.yaml", f"{YAML}train: {entry}\n")
        assert f"train is {entry}, which has no images in" in refused(tmp_path)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("2 0.5 0.5 0.2 0.4", "a.txt, line 1: class 2: expected one of 0 nut, 1 bolt"),
        ("-1 0.5 0.5 0.2 0.4", "class -1"),
        ("0.5 0.5 0.5 0.2 0.4", "class 0.5"),
        (f"{ROW}\n0 16 6 8 8", "line 2: 0 16 6 8 8: expected parts of the width and height"),
        (f"{ROW} 0.9", "6 numbers, as of a detection with a score"),
        ("0 0.5 0.5 0.2", "4 numbers: expected class"),
        ("0 0.1 0.1 0.5 0.1 0.5", "6 numbers"),
        ("nut 0.5 0.5 0.2 0.4", "nut 0.5 0.5 0.2 0.4: expected class"),
        ("0 0.5 nan 0.2 0.4", "expected parts"),
        ("0 0.5 0.5 -0.2 0.4", "expected parts"),
    ],
)
def test_bad_rows(tmp_path, rows, expected):
    image(tmp_path / "a.jpg")
    text(tmp_path / "a.txt", rows)
    text(tmp_path / "data.yaml", YAML)
    assert expected in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("names: {0: nut, x: bolt}", "names is"),
        ("names: {-1: nut, 0: bolt}", "names is"),
        ("names: [nut, bolt]\nnc: 3", "nc is 3, but it has 2 names"),
    ],
)
def test_bad_names(tmp_path, content, expected):
    image(tmp_path / "a.jpg")
    text(tmp_path / "a.txt", ROW)
    text(tmp_path / "data.yaml", content)
    assert expected in refused(tmp_path)


def test_labels_without_their_image(tmp_path):
    image(tmp_path / "images/a.jpg")
    text(tmp_path / "labels/a.txt", ROW)
    text(tmp_path / "labels/b.txt", ROW)
    text(tmp_path / "labels/classes.txt", "nut\nbolt\n")
    assert "1 of 2 lines of the label files have a mistake:\n  labels/b.txt: its im" in refused(
        tmp_path
    )
    os.remove(tmp_path / "labels/b.txt")
    assert boxes(tmp_path) == {"images/a.jpg": [("bolt", [16, 6, 8, 8])]}
    os.remove(tmp_path / "labels/classes.txt")
    assert boxes(tmp_path) == {"images/a.jpg": [("class 1", [16, 6, 8, 8])]}
    image(tmp_path / "images/a.png")
    assert "labels/a.txt may be about images/a.jpg, images/a.png: rename" in refused(tmp_path)


def test_poses_are_boxes(tmp_path):
    image(tmp_path / "a.jpg")
    text(tmp_path / "a.txt", f"{ROW} 0.5 0.5 2 0.4 0.4 1")
    text(tmp_path / "data.yaml", f"{YAML}kpt_shape: [2, 3]\n")
    assert boxes(tmp_path) == {"a.jpg": [("bolt", [16, 6, 8, 8])]}


def test_damaged_images_are_named(tmp_path):
    text(tmp_path / "a.jpg", "")
    text(tmp_path / "a.txt", ROW)
    assert "1 of 1 images cannot be read:" in refused(tmp_path)


def test_upright_images(tmp_path):
    """Labels are of the image as viewers show it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.jpg", exif=exif)
    text(tmp_path / "a.txt", ROW)
    assert boxes(tmp_path) == {"a.jpg": [("class 1", [8, 12, 4, 16])]}


@pytest.mark.parametrize(
    ("images", "labels"),
    [("", ""), ("images/", "annotations/"), ("JPEGImages/", "Annotations/"), ("x/", "y/")],
)
def test_voc(tmp_path, images, labels):
    image(tmp_path / f"{images}A.JPG")
    image(tmp_path / f"{images}unlabeled.jpg")
    objects = [("nut", (2, 3, 11, 12)), ("bolt", (1, 1, 40, 20), "<difficult>1</difficult>")]
    text(tmp_path / f"{labels}a.xml", xml(*objects, name=r"C:\photos\a.jpg"))
    text(tmp_path / "labelmap.txt", "# label:color\n")
    name = f"{images}A.JPG"
    assert boxes(tmp_path) == {name: [("nut", [1, 2, 10, 10]), ("bolt", [0, 0, 40, 20])]}
    crowds = [x["iscrowd"] for x in read_folder(str(tmp_path)).part("").content["annotations"]]
    assert crowds == [0, 1]
    text(tmp_path / f"{labels}a.xml", xml(("nut", (0, 2, 10, 12))))  # counted from 0
    assert boxes(tmp_path) == {name: [("nut", [0, 2, 10, 10])]}


def test_voc_with_polygons_and_classes_of_two_cases(tmp_path):
    image(tmp_path / "a.jpg")
    polygon = "<polygon><x1>4</x1><y1>2</y1><x2>20</x2><y2>2</y2><x3>20</x3><y3>18</y3></polygon>"
    text(tmp_path / "a.xml", xml(("Nut", (5, 3, 20, 18), polygon), ("nut", (5, 3, 20, 18))))
    found = read_folder(str(tmp_path))
    first = found.part("train").content["annotations"][0]
    assert first["segmentation"] == [[4, 2, 20, 2, 20, 18]] and first["bbox"] == [4, 2, 16, 16]
    assert "classes differ in the case of their letters only: Nut, nut" in found.notes


def test_image_sets_of_voc(tmp_path):
    for name in "abc":
        image(tmp_path / "JPEGImages" / f"{name}.jpg")
        text(tmp_path / "Annotations" / f"{name}.xml", xml(("nut", (1, 1, 9, 9)), name=""))
    text(tmp_path / "ImageSets/Main/train.txt", "a\nb\n")
    text(tmp_path / "ImageSets/Main/val.txt", "c\n")
    assert set(boxes(tmp_path)) == {"JPEGImages/a.jpg", "JPEGImages/b.jpg"}
    assert set(boxes(tmp_path, "val")) == {"JPEGImages/c.jpg"}


SIZE = "<size><width>{}</width><height>{}</height></size>"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<annotation><object>", "a.xml: its XML cannot be read: "),
        (xml(("nut", (5, 1, 2, 9))), "bndbox of nut: 5, 1, 2, 9: max is below min"),
        (xml(("nut", ("x", 1, 2, 9))), "bndbox of nut: expected the numbers xmin"),
        (xml(("", (1, 1, 2, 9))), "an object has no name"),
        (xml(("nut", (1, 1, 2, 9)), name="").replace("bndbox", "box"), "(nut) has no bndbox"),
        (xml(("nut", (1, 1, 2, 9)), size=SIZE.format(20, 40)), "its labels say 20 x 40"),
    ],
)
def test_bad_xml(tmp_path, content, expected):
    image(tmp_path / "a.jpg")
    text(tmp_path / "a.xml", content)
    assert expected in refused(tmp_path)


def test_xml_without_size_or_image(tmp_path):
    image(tmp_path / "a.jpg")
    for side in (0, "9" * 5000):  # Python reads no number of so many digits
        text(tmp_path / "a.xml", xml(("nut", (1, 1, 2, 9)), size=SIZE.format(side, side)))
        assert len(boxes(tmp_path)) == 1
    text(tmp_path / "b.xml", xml(("nut", (1, 1, 2, 9)), name="b.jpg"))
    assert "1 of 2 XML files have a mistake:\n  b.xml: its image b.jpg is missing" in refused(
        tmp_path
    )


def shape(label: str, points: list, kind: str = "polygon", **more) -> dict:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


def labelme(path: Path, shapes, **more) -> None:
    size = {"imageWidth": WIDTH, "imageHeight": HEIGHT}
    content = {"version": "5", "shapes": shapes, "imagePath": r"..\a.jpg", **size, **more}
    text(path, json.dumps(content))


def test_labelme(tmp_path):
    image(tmp_path / "a.jpg")
    triangle = [[4, 2], [20, 2], [20, 18]]
    drawn = io.BytesIO()
    Image.new("L", (5, 3), 255).save(drawn, "PNG")
    mask = base64.b64encode(drawn.getvalue()).decode()
    shapes = [
        shape("nut", triangle),
        shape("nut", triangle),  # the same again is another object
        shape("bolt", [[1, 1], [5, 5]], "rectangle", group_id=1),
        shape("bolt", [[9, 9], [11, 1]], "rectangle", group_id=1),
        shape("disk", [[20, 10], [24, 10]], "circle"),
        shape("brush", [[3, 4], [7, 6]], "mask", mask=mask),
        shape("tip", [[1, 1]], "point"),
    ]
    labelme(tmp_path / "a.json", shapes, imagePath="copied.jpg")  # then that of the same name
    nut = ("nut", [4, 2, 16, 16])
    others = [("bolt", [1, 1, 10, 8]), ("disk", [16, 6, 8, 8]), ("brush", [3, 4, 5, 3])]
    assert boxes(tmp_path) == {"a.jpg": [nut, nut, *others]}
    items = read_folder(str(tmp_path)).part("train").content["annotations"]
    assert len(items[2]["segmentation"]) == 2
    assert mask_util.area(items[4]["segmentation"]) == 15


@pytest.mark.parametrize(
    ("shapes", "more", "expected"),
    [
        ([shape("nut", [[1, 1], [2, 2]])], {}, "polygon of nut: expected at least 3 points [x, y]"),
        ([shape("nut", [[1, 1], [2, "x"], [3, 3]])], {}, "polygon of nut"),
        ([shape(None, [])], {}, "shape 1 has no label"),
        (3, {}, "shapes is no list, but 3"),
        (
            [shape("nut", [[1, 1], [3, 3]], "mask", mask="AAAA")],
            {},
            "mask of nut: expected two",
        ),
        ([], {"imageWidth": 99}, "its labels say 99 x 20"),
    ],
)
def test_bad_labelme(tmp_path, shapes, more, expected):
    image(tmp_path / "a.jpg")
    labelme(tmp_path / "a.json", shapes, **more)
    assert expected in refused(tmp_path)


def mask(path: Path, box: tuple, *, values=(0, 255), size=(WIDTH, HEIGHT), mode="L") -> None:
    pixels = np.full(size[::-1], values[0], dtype=np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = values[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.mark.parametrize(
    ("picture", "first", "second", "names"),
    [
        ("images/a.jpg", "masks/a/nut_1.png", "masks/a/bolt_2.png", ["nut", "bolt"]),
        ("images/a.jpg", "masks/nut/a_1.png", "masks/bolt/a_2.png", ["nut", "bolt"]),
        ("images/a.jpg", "masks/a_1.png", "masks/a_2.png", ["object", "object"]),
        ("a/images/a.png", "a/masks/3f0c.png", "a/masks/91d2.png", ["object", "object"]),
        ("train/images/a.jpg", "train/masks/a_1.png", "train/masks/a_2.png", ["object"] * 2),
    ],
)
def test_masks(tmp_path, picture, first, second, names):
    image(tmp_path / picture)
    mask(tmp_path / first, (2, 3, 12, 9))
    mask(tmp_path / second, (20, 3, 25, 19), values=(0, 1), mode="RGB")
    expected = [(names[0], [2, 3, 10, 6]), (names[1], [20, 3, 5, 16])]
    assert sorted(boxes(tmp_path)[picture]) == sorted(expected)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("a_1.png", {"values": (0, 0)}, "masks/a_1.png: the mask is empty"),
        ("b_1.png", {}, "masks/b_1.png: its image is missing"),
        ("a_1.png", {"size": (30, 30)}, "its labels say 30 x 30"),
    ],
)
def test_bad_masks(tmp_path, name, options, expected):
    image(tmp_path / "images/a.jpg")
    mask(tmp_path / "masks" / name, (2, 3, 12, 9), **options)
    assert expected in refused(tmp_path)


def test_masks_of_several_objects_are_refused(tmp_path):
    image(tmp_path / "images/a.jpg")
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.arange(800, dtype=np.uint16).reshape(20, 40).astype(np.uint8)).save(
        tmp_path / "masks/a.png"
    )
    assert "it has 256 values: expected 0 and one other" in refused(tmp_path)


def coco(path: Path, *, root: bool = True, category: int = 1) -> None:
    image(path.parent / "a.jpg")
    categories = [{"id": 1, "name": "nut", "supercategory": "nuts"}]
    categories += [{"id": 2, "name": "bolt", "supercategory": "nuts"}]
    group = [{"id": 0, "name": "nuts", "supercategory": "none"}] if root else []
    record = {"id": 1, "image_id": 5, "category_id": category, "bbox": [1, 2, 3, 4]}
    size = {"file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}
    content = {"images": [{"id": 5, **size}], "annotations": [record]}
    text(path, json.dumps({**content, "categories": group + categories}))


def test_coco_of_roboflow(tmp_path):
    for split in ("train", "valid", "test"):
        coco(tmp_path / split / "_annotations.coco.json")
    found = read_folder(str(tmp_path))
    assert found.format == "COCO" and set(found.parts) == {"train", "val", "test"}
    assert "the class nuts is the group of all others: left out" in found.notes
    assert [c["name"] for c in found.part("val").content["categories"]] == ["nut", "bolt"]
    assert found.part("val").image_root == str(tmp_path / "valid")
    coco(tmp_path / "valid" / "_annotations.coco.json", category=0)  # it is used
    found = read_folder(str(tmp_path))
    assert len(found.part("train").content["categories"]) == 3
    assert found.part("train").file == str(tmp_path / "train" / "_annotations.coco.json")


def test_several_coco_files(tmp_path):
    coco(tmp_path / "a.json", root=False)
    coco(tmp_path / "instances_b.json", root=False)
    assert read_folder(str(tmp_path)).part("train").file.endswith("instances_b.json")
    coco(tmp_path / "instances_c.json")
    assert "several COCO files: instances_b.json, instances_c.json: name one" in refused(tmp_path)


def test_the_first_format_is_read(tmp_path):
    image(tmp_path / "a.jpg")
    text(tmp_path / "a.txt", ROW)
    text(tmp_path / "a.xml", xml(("nut", (1, 1, 9, 9))))
    found = read_folder(str(tmp_path))
    assert found.format == "Pascal VOC" and "there is YOLO too, which is not read" in found.notes


def test_unknown_folders(tmp_path):
    assert "(files by ending: no files). Looked for\n  COCO: " in refused(tmp_path)
    image(tmp_path / "a.jpg")
    text(tmp_path / ".hidden/a.txt", ROW)
    message = refused(tmp_path)
    assert "(files by ending: 1 .jpg)" in message
    for name in ("COCO", "LabelMe", "Pascal VOC", "YOLO", "one mask per object"):
        assert f"\n  {name}: " in message


def test_links_in_circles(tmp_path):
    image(tmp_path / "images/a.jpg")
    (tmp_path / "images/again").symlink_to(tmp_path)
    assert Tree.below(str(tmp_path)).images == ["images/a.jpg"]


def test_broken_and_odd_yaml(tmp_path):
    image(tmp_path / "a.jpg")
    text(tmp_path / "a.txt", ROW)
    for content, expected in (
        ("names: [nut, bolt\ntrain: x\n", "data.yaml, line 2: "),
        ("names: !!python/object:os.system []\n", "data.yaml, line 1: could not determine"),
        ("names: nut\n", "names is nut: expected a list of names"),
        ("names: [{a: nut}, bolt]\n", "expected a list of names"),
    ):
        text(tmp_path / "data.yaml", content)
        assert expected in refused(tmp_path)


def test_a_folder_in_a_folder(tmp_path):
    """As archives are often unpacked."""
    inner = tmp_path / "outer" / "my data"
    image(inner / "images" / "a.jpg")
    text(inner / "labels" / "a.txt", ROW)
    text(inner / "data.yaml", YAML)
    text(tmp_path / ".DS_Store", "")
    assert boxes(tmp_path) == {"outer/my data/images/a.jpg": [("bolt", [16, 6, 8, 8])]}
    image(inner / "images" / "b.jpg")
    text(inner / "data.yaml", YAML + "train: lists/train.txt\n")
    text(inner / "lists/train.txt", "../images/a.jpg\n")
    assert set(boxes(tmp_path, "train")) == {"outer/my data/images/a.jpg"}


def test_lists_of_darknet(tmp_path):
    """What they list is used, and what is missing is told."""
    for name in "abc":
        image(tmp_path / "obj_train_data" / f"{name}.jpg")
        text(tmp_path / "obj_train_data" / f"{name}.txt", ROW)
    text(tmp_path / "obj.names", "nut\nbolt\n")
    text(tmp_path / "obj.data", "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\n")
    text(tmp_path / "train.txt", "data/obj_train_data/a.jpg\n\ndata/obj_train_data/d.jpg\n")
    text(tmp_path / "valid.txt", "data/obj_train_data/b.jpg\n")
    found = read_folder(str(tmp_path))
    assert set(boxes(tmp_path, "train")) == {"obj_train_data/a.jpg"}
    assert set(boxes(tmp_path, "val")) == {"obj_train_data/b.jpg"}
    assert "missing, but listed: data/obj_train_data/d.jpg" in found.notes
    assert "1 image of no split, left out" in found.notes


def test_labels_of_a_renamed_image(tmp_path):
    """The name of the file counts, not the one of before in it; an image has one file of labels."""
    image(tmp_path / "a.jpg")
    image(tmp_path / "b.jpg")
    text(tmp_path / "a.xml", xml(("nut", (1, 1, 10, 10)), name="b.jpg"))
    text(tmp_path / "b.xml", xml(("bolt", (1, 1, 10, 10)), name="b.jpg"))
    assert {name: found[0][0] for name, found in boxes(tmp_path).items()} == {
        "a.jpg": "nut",
        "b.jpg": "bolt",
    }
    text(tmp_path / "c.xml", xml(("bolt", (1, 1, 10, 10)), name="b.jpg"))
    assert "c.xml: b.jpg has labels in b.xml, too" in refused(tmp_path)


def test_other_lists_and_encodings_of_voc(tmp_path):
    for name in "abc":
        image(tmp_path / "JPEGImages" / f"{name}.jpg")
        path = tmp_path / "Annotations" / f"{name}.xml"
        text(path, "")
        content = xml(("nut", (1, 1, 10, 10)), name=f"{name}.jpg")
        path.write_text(f'<?xml version="1.0" encoding="utf-16"?>{content}', encoding="utf-16")
    text(tmp_path / "ImageSets/Main/trainval.txt", "a\nb\nz\n")
    text(tmp_path / "ImageSets/Main/test.txt", "c\n")
    found = read_folder(str(tmp_path))
    assert {split: len(part.content["images"]) for split, part in found.parts.items()} == {
        "train": 2,
        "test": 1,
    }
    assert "ImageSets lists 1 more without labels: z" in found.notes
    (tmp_path / "ImageSets/Main/test.txt").write_text("c\n", encoding="utf-16")
    assert read_folder(str(tmp_path)).parts.keys() == {"train", "test"}
    text(tmp_path / "ImageSets/Main/trainval.txt", "")
    with pytest.raises(InputError, match="has the split test, and no train"):
        read_folder(str(tmp_path)).part("train")
    labels = tmp_path / "Annotations/a.xml"
    for encoding in ("utf-8", "utf-16"):
        labels.write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', encoding=encoding)
        assert "a.xml: it declares entities" in refused(tmp_path)


def test_voc_parses_what_was_searched(tmp_path, monkeypatch):
    """A file that changes in between could declare entities all the same."""
    image(tmp_path / "a.jpg")
    text(tmp_path / "a.xml", xml(("nut", (1, 1, 5, 5))))
    tree, opened = Tree.below(str(tmp_path)), []
    read_bytes = Tree.read_bytes

    def counted(self, file):
        opened.append(file)
        return read_bytes(self, file)

    monkeypatch.setattr(Tree, "read_bytes", counted)
    monkeypatch.setattr(ElementTree, "parse", None)
    voc.read(tree)
    assert opened == ["a.xml"]


def test_labelme_files_that_are_cut_off(tmp_path):
    """The last keys are missing, or all; JSON files of other tools do not matter."""
    shape = {"label": "nut", "shape_type": "rectangle", "points": [[1, 1], [5, 5]]}
    others = [{**shape, "shape_type": kind} for kind in ("rotation", "rotation", "point")]
    whole = json.dumps({"shapes": [shape, *others], "imagePath": "a.jpg", "imageData": None})
    for name in "ab":
        image(tmp_path / f"{name}.jpg")
        text(tmp_path / f"{name}.json", whole)
    text(tmp_path / "settings.json", "{}")
    found = read_folder(str(tmp_path))
    assert "shapes that are no objects, left out: 4 rotation, 2 point" in found.notes
    for content in (whole[:-40], '{"version": "5'):
        text(tmp_path / "b.json", content)
        assert "b.json: this file is not valid JSON" in refused(tmp_path)


def test_masks_in_the_alpha_channel_and_images_without(tmp_path):
    for name in ("a", "b"):
        image(tmp_path / "images" / f"{name}.jpg")
    alpha = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    alpha[..., :3] = 255
    alpha[6:14, 16:24, 3] = 255
    (tmp_path / "masks" / "nut").mkdir(parents=True)
    Image.fromarray(alpha).save(tmp_path / "masks" / "nut" / "a_1.png")
    assert boxes(tmp_path) == {"images/a.jpg": [("nut", [16, 6, 8, 8])]}
    notes = read_folder(str(tmp_path)).notes
    assert "1 image without masks, left out: images/b.jpg" in notes


def test_areas_for_pycocotools(tmp_path):
    """Of masks if there are any, else of boxes; those that training would fill in."""
    image(tmp_path / "a.jpg")
    small = "0 0.5 0.3 0.6125 0.3 0.6125 0.525 0.5 0.525"  # 4.5 x 4.5, of 25 pixels
    text(tmp_path / "a.txt", f"{ROW}\n{POLYGON}\n{small}")
    (content,) = [part.content for part in read_folder(str(tmp_path)).parts.values()]
    box, polygon, square = content["annotations"]
    assert box["area"] == pytest.approx(64)
    for item in (polygon, square):
        assert item["area"] == mask_util.area(to_rle(item["segmentation"], HEIGHT, WIDTH))
    assert not read_coco("labels", content=content).notes
    unfilled = {**content, "annotations": [{**polygon, "area": None}, {**square, "area": 0}]}
    filled = read_coco("labels", content=unfilled, masks=True).annotations
    assert [item["area"] for item in filled] == [polygon["area"], square["area"]]
    (tmp_path / "a.txt").unlink()
    mask(tmp_path / "masks" / "a_1.png", (2, 3, 12, 9))
    (content,) = [part.content for part in read_folder(str(tmp_path)).parts.values()]
    assert [item["area"] for item in content["annotations"]] == [60]
