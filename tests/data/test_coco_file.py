"""The one reading of COCO files: what it understands, what it refuses, and who agrees with it."""

import copy
import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.structures import Boxes, Instances

from brloss_d2.data import check_coco_json, load_coco_dataset, read_coco
from brloss_d2.data.masks import normalized_mask
from brloss_d2.errors import InputError
from brloss_d2.evaluation import COCOEvaluator
from brloss_d2.evaluation.protocols import read_ground_truth
from tests.helpers import coco_files as files


def good(images=4):
    """Boxes with polygons as masks."""
    data = files.content(images=images)
    for record in data["annotations"]:
        x, y, w, h = record["bbox"]
        record.update(segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]])
    return data


def read(tmp_path, data, **options):
    return read_coco(files.write(tmp_path, data), **options)


def change(data, section, **values):
    """Set keys in all records of a section; functions get the record."""
    for record in data[section]:
        for key, value in values.items():
            record[key] = value(record) if callable(value) else copy.deepcopy(value)


def drop(*keys):
    def apply(data):
        for record in data["annotations"]:
            for key in keys:
                del record[key]

    return apply


def rle(record, *, text):
    x, y, w, h = map(int, record["bbox"])
    pixels = np.zeros((files.HEIGHT, files.WIDTH), np.uint8, order="F")
    pixels[y : y + h, x : x + w] = 1
    mask = mask_util.encode(pixels)
    if text:
        return {**mask, "counts": mask["counts"].decode()}
    flat = pixels.ravel(order="F")
    starts = np.flatnonzero(np.diff(flat, prepend=1 - flat[0]))
    return {**mask, "counts": np.diff([*starts, flat.size]).tolist()}


@pytest.mark.parametrize(
    "written",
    [
        lambda d: change(d, "annotations", iscrowd=None),
        lambda d: change(d, "annotations", iscrowd=False),
        drop("iscrowd"),
        lambda d: change(d, "annotations", area=None),
        lambda d: change(d, "annotations", area=0),
        drop("area"),
        lambda d: change(d, "annotations", image_id=lambda r: str(r["image_id"])),
        lambda d: change(d, "annotations", category_id=lambda r: float(r["category_id"])),
        lambda d: [change(d, s, id=lambda r: str(r["id"])) for s in d],
        lambda d: change(d, "images", width=float(files.WIDTH), height=str(files.HEIGHT)),
        lambda d: change(d, "annotations", segmentation=lambda r: r["segmentation"][0]),
        lambda d: change(d, "annotations", segmentation=lambda r: [*r["segmentation"], [], [1, 2]]),
        lambda d: change(d, "annotations", keypoints="abc", attributes={"a": None}),
        lambda d: d.update(info=None, licenses=[None]),
    ],
)
def test_other_spellings_of_the_same(tmp_path, written):
    data = good()
    expected = read(tmp_path, data, masks=True)
    written(data)
    found = read(tmp_path, data, masks=True)
    assert found.categories == expected.categories == {2: "bolt", 7: "nut"}
    assert (found.images, found.annotations) == (expected.images, expected.annotations)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_encodings(tmp_path, encoding):
    data = good()
    data["categories"][0]["name"] = "Schraubenmuttern 🔩"
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data, ensure_ascii=False), encoding=encoding)
    assert read_coco(str(path)).categories[7] == "Schraubenmuttern 🔩"
    assert len(read_ground_truth(str(path)).anns) == 3


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x80abc", "not valid JSON, which is UTF-8"),
        ("Ä".encode("latin-1") + b"{}", "not valid JSON, which is UTF-8: .* Save it as UTF-8"),
        (b"<!DOCTYPE html><html>", r"It starts with '<!DOCTYPE html><html"),
        (
            b"version https://git-lfs",
            r"It starts with 'version https://git-.* It is a pointer of Git",
        ),
        (b"[" * 100_000, "nested too deeply"),
        (b"  \n", "is empty"),
        (b"1" * 10_000, "not valid JSON: a number has thousands of digits"),
        (b"\x1f\x8b\x08", "UTF-8: .* It is a packed archive: unpack it"),
        (b"PK\x03\x04", "It is a packed archive: unpack it"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, expected):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=expected):
        read_coco(str(tmp_path / "a.json"))


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        *(
            ("annotations", {"iscrowd": value}, "iscrowd that is none of 0, 1, true, false and")
            for value in ("0", 2, -1, 0.5, [], "", float("nan"))
        ),
        *(
            ("annotations", {"area": value}, "area that is no finite number >= 0")
            for value in ("80", -80.0, float("nan"), float("inf"), True, [], 10**400)
        ),
        ("annotations", {"area": 1e9}, "area .* larger than their image and box: id 1, id 2"),
        *(
            ("annotations", {"bbox": [2, 3, value, 8]}, "no bbox of 4 finite numbers")
            for value in (None, "10", True, 10**400, float("inf"))
        ),
        ("annotations", {"category_id": 2.5}, r"name categories .* id 1 \(category_id 2\.5\)"),
        ("annotations", {"category_id": True}, "name categories that the file does not list"),
        ("annotations", {"image_id": "01"}, "belong to images that the file does not list"),
        ("images", {"width": 29.5}, "no positive height and width"),
        ("images", {"height": 2**40}, "no positive height and width"),
        ("categories", {"name": 3}, "no name that is text: id 7 .name 3., id 2 .name 3."),
    ],
)
def test_values_without_a_certain_meaning(tmp_path, section, values, expected):
    data = good()
    change(data, section, **values)
    with pytest.raises(InputError, match=expected):
        read(tmp_path, data)


def test_records_without_an_id_are_named_by_their_place(tmp_path):
    data = good()
    del data["annotations"][1]["id"]
    with pytest.raises(InputError, match="no integer id: number them from 1: number 2 in the list"):
        read(tmp_path, data)


POLYGON = [2.0, 3.0, 12.0, 3.0, 12.0, 11.0]
SIZE = [files.HEIGHT, files.WIDTH]


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, "have no 'segmentation': id 1, id 2, id 3. This config learns masks"),
        ([], "have no 'segmentation'"),
        ([[]], "id 1, id 2, id 3 (no polygon has 3 points)"),
        ([[2.0, 3.0], [12.0, 3.0], [12.0, 11.0]], "a list of points, expected polygons"),
        ([POLYGON[:4]], "no polygon has 3 points"),
        (POLYGON[:4], "no polygon has 3 points"),
        ([POLYGON[:5]], "5 numbers, which are no pairs"),
        ([[*POLYGON[:5], None]], "no list of finite numbers"),
        ([[*POLYGON[:5], "3"]], "no list of finite numbers"),
        ([[*POLYGON[:5], float("nan")]], "no list of finite numbers"),
        ([[*POLYGON[:5], 10**400]], "no list of finite numbers"),
        ([[*POLYGON[:5], 1e6]], "a polygon far outside of the image"),
        ([POLYGON, None], "no list of finite numbers"),
        ([[POLYGON]], "no list of finite numbers"),
        (5, "int is neither polygons nor RLE"),
        ("", "str is neither polygons nor RLE"),
        ({}, "RLE of size None for an image of [height, width] [20, 30]"),
        ({"size": SIZE[::-1], "counts": [600]}, "RLE of size [30, 20]"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "RLE of size [1000000"),
        ({"size": SIZE}, "neither text nor a list of integers"),
        ({"size": SIZE, "counts": [1.5, 598.5]}, "neither text nor a list of integers"),
        ({"size": SIZE, "counts": [None, 600]}, "neither text nor a list of integers"),
        ({"size": SIZE, "counts": [100, 50]}, "add up to 150 of 600 pixels"),
        ({"size": SIZE, "counts": [100, 10**9]}, "add up to 1000000100 of 600 pixels"),
        ({"size": SIZE, "counts": [2**52] * 4096 + [600]}, "of 600 pixels"),
        ({"size": SIZE, "counts": [700, -100]}, "negative run"),
        ({"size": SIZE, "counts": []}, "add up to 0 of 600 pixels"),
        ({"size": SIZE, "counts": ""}, "damaged text"),
        ({"size": SIZE, "counts": "zz}}~~"}, "damaged text"),
        ({"size": SIZE, "counts": "o" * 50}, "damaged text"),
        ({"size": SIZE, "counts": "\u00e9"}, "damaged text"),
        ({"size": SIZE, "counts": "\ud800"}, "damaged text"),
        ({"size": SIZE, "counts": "o" * 9 + "1"}, "damaged text"),
    ],
)
def test_masks_that_are_none(tmp_path, mask, expected):
    data = good()
    change(data, "annotations", segmentation=mask)
    with pytest.raises(InputError) as error:
        read(tmp_path, data, masks=True)
    assert "3 of 3 boxes" in str(error.value) and expected in str(error.value)
    for masks in (False, None):
        content = read(tmp_path, data, masks=masks)
        assert [a["role"] for a in content.annotations] == ["object"] * 3
        assert not any("segmentation" in a for a in content.annotations)


@pytest.mark.parametrize("text", [False, True])
def test_rle_is_read_as_pycocotools_reads_it(tmp_path, text):
    data = good()
    expected = read(tmp_path, data, masks=True)
    change(data, "annotations", segmentation=lambda r: rle(r, text=text), area=None)
    data["annotations"][1]["segmentation"] = rle(data["annotations"][1], text=False)
    counts = data["annotations"][1]["segmentation"]["counts"]
    counts[1:1] = [0, 0]  # runs of nothing, at which pycocotools may stop
    counts += [0, 0, 0]
    found = read(tmp_path, data, masks=True)
    assert [a["area"] for a in found.annotations] == [a["area"] for a in expected.annotations]
    for annotation in found.annotations:
        assert annotation["segmentation"] == rle(annotation, text=True)


def test_compressed_runs_of_all_lengths_are_decoded():
    rng = np.random.default_rng(0)
    for _ in range(50):
        runs = (2 ** rng.uniform(0, 21, rng.integers(1, 9))).astype(int).tolist()
        mask = mask_util.frPyObjects({"size": [1, sum(runs)], "counts": runs}, 1, sum(runs))
        mask = {"size": [1, sum(runs)], "counts": mask["counts"].decode()}
        assert normalized_mask(mask, 1, sum(runs)) == mask


def test_ids_that_are_text_or_beyond_64_bits_become_numbers(tmp_path):
    data = good()
    expected = read(tmp_path, data)
    change(data, "images", id=lambda r: f"image {r['id']}")
    change(data, "annotations", image_id=lambda r: f"image {r['image_id']}", id="x")
    for number, record in enumerate(data["annotations"]):
        record.update(id=f"{number}-a", category_id=record["category_id"] + 2**80)
    change(data, "categories", id=lambda r: r["id"] + 2**80)
    found = read(tmp_path, data)
    assert found.images == expected.images
    assert found.categories == {1: "bolt", 2: "nut"}  # in the order of the ids
    assert [a["category_id"] for a in found.annotations] == [1, 2, 1]
    assert [a["image_id"] for a in found.annotations] == [1, 2, 3]
    assert "results number the images from 1" in found.notes[0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("bolt", "bolt"), ["bolt (id 2)", "bolt (id 7)"]),
        (("", "  "), ["(id 2)", "(id 7)"]),
        (("AP50", "oLRP_Loc"), ["AP50", "oLRP_Loc"]),
        (("\x1b[31mred\n", "\ud800"), [r"\x1b[31mred\n", r"\ud800"]),
        (("a\n", r"a\n"), [r"a\n (id 2)", r"a\n (id 7)"]),
    ],
)
def test_names_are_printable_and_differ(tmp_path, names, expected):
    data = good()
    for record, name in zip(data["categories"], names[::-1], strict=True):
        record["name"] = name
    assert list(read(tmp_path, data).categories.values()) == expected
    load(tmp_path, data, "test_names")
    evaluator = COCOEvaluator("test_names", distributed=False)
    evaluator.reset()
    for id_ in (1, 2, 3):
        evaluator.process([{"image_id": id_}], [{"instances": detections(label=(id_ + 1) % 2)}])
    results = evaluator.evaluate()["bbox"]
    assert results["AP"] == pytest.approx(100)
    for name in expected:
        assert results[f"AP-{name}"] == pytest.approx(100) and f"oLRP-{name}" in results


def load(tmp_path, data, name):
    return load_coco_dataset(name, files.write(tmp_path, data), str(tmp_path))


def detections(*, label):
    found = Instances((files.HEIGHT, files.WIDTH))
    found.pred_boxes = Boxes(torch.tensor([[2.0, 3.0, 12.0, 11.0]]))
    found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([label])
    return found


def test_a_name_of_two_ids_that_is_also_taken(tmp_path):
    data = good()
    data["categories"] = [
        {"id": 2, "name": "a"},
        {"id": 5, "name": "a (id 7)"},
        {"id": 7, "name": "a"},
    ]
    assert len(set(read(tmp_path, data).categories.values())) == 3


@pytest.mark.parametrize("masks", [False, True])
def test_check_loader_mapper_and_evaluator_agree(tmp_path, masks):
    """Also about boxes that cross the border of their image, and about masks without pixels."""
    data = good(images=2)
    boxes = [
        [25, 15, 10, 10],  # in part
        [-5, -5, 6, 6],
        [-5, -5, 5, 5],  # just outside
        [30, 3, 10, 10],
        [1000, 3, 10, 10],
        [2, 3, 0, 5],
        [2, 3, 5, 0],
        [2, 3, 1e-6, 5],
        [2, 3, 1e12, 5],
    ]
    elsewhere = [[-9.0, -9.0, -5.0, -9.0, -5.0, -5.0]]
    for box in boxes:
        data["annotations"].append(files.annotation(len(data["annotations"]) + 1, 1, box=box))
    data["annotations"].append(files.annotation(99, 2, iscrowd=1))
    data["annotations"].append(files.annotation(98, 2, iscrowd=1, box=[5, 5, 0, 0]))
    inside = POLYGON if masks else None
    for number in (1, 2, 9):
        data["annotations"][number]["segmentation"] = [inside]
    data["annotations"].append(files.annotation(100, 2, segmentation=elsewhere))
    path = files.write(tmp_path, data)
    summary = check_coco_json(path, str(tmp_path), masks=masks)
    records = load_coco_dataset("test_agree", path, str(tmp_path), masks=masks)
    assert summary.boxes == (4 if masks else 5)
    assert sum(map(len, files.mapped(records, masks=masks))) == summary.boxes
    truth = read_ground_truth(path, masks=masks)
    counted = sum(not annotation["iscrowd"] for annotation in truth.anns.values())
    assert counted == summary.boxes + sum(summary.dropped.values())
    assert summary.dropped == {
        "without area": 3,
        "outside of the image": 3,
        "with an empty mask": int(masks),
    }
    assert all(annotation["area"] <= 1e10 for annotation in truth.anns.values())
    if masks:  # pycocotools needs a mask of everything
        for annotation in truth.anns.values():
            assert truth.annToMask(annotation).shape == tuple(SIZE)


def test_area_is_that_of_the_mask_if_masks_are_learned(tmp_path):
    data = good()
    change(data, "annotations", segmentation=[POLYGON], area=None)
    boxes, pixels = (
        [a["area"] for a in read(tmp_path, data, masks=masks).annotations]
        for masks in (False, True)
    )
    assert boxes == [80.0] * 3
    assert pixels[0] == mask_util.area(mask_util.frPyObjects([POLYGON], *SIZE))[0]


def test_odd_areas_are_told(tmp_path):
    data = good()
    for record, area in zip(data["annotations"], (0, 200, 0.3), strict=True):
        record["area"] = area
    notes = read(tmp_path, data).notes
    assert notes[0].startswith("1 of 3 boxes have area 0") and notes[0].endswith(": id 1")
    assert notes[1] == "1 of 3 boxes have an area larger than their box: id 2"
    assert notes[2].startswith("1 of 3 boxes have an area below a pixel")


def test_an_evaluator_of_masks_reads_them_as_the_check(tmp_path):
    data = good()
    data["annotations"][0]["segmentation"] = [[1, 2]]
    assert load(tmp_path, data, "test_masks")
    COCOEvaluator("test_masks", tasks=("bbox",))
    with pytest.raises(InputError, match=r"instances\.json: 1 of 3 boxes .*no polygon has 3 po"):
        COCOEvaluator("test_masks", tasks=("bbox", "segm"))


def test_a_test_set_has_no_list_of_annotations(tmp_path):
    data = good()
    del data["annotations"]
    file = files.write(tmp_path, data)
    content = read_coco(file, unannotated=True)
    assert (len(content.images), content.annotations, content.annotated) == (4, [], False)
    assert "annotations" not in read_ground_truth(file, unannotated=True).dataset
    records = load_coco_dataset("test_set", file, str(tmp_path), unannotated=True)
    assert [record["annotations"] for record in records] == [[]] * 4
    for read_it in (read_coco, read_ground_truth):
        with pytest.raises(InputError, match="no key annotations"):
            read_it(file)
    del data["categories"]
    with pytest.raises(InputError, match="no key categories"):
        read(tmp_path, data, unannotated=True)


def test_rotated_boxes_are_told(tmp_path):
    data = good()
    data["annotations"][0]["attributes"] = {"rotation": 30.0, "occluded": False}
    data["annotations"][1]["attributes"] = {"rotation": 0.0}
    (note,) = read(tmp_path, data).notes
    assert "1 of 3 boxes are rotated" in note
