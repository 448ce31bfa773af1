import os
from pathlib import Path

import pytest

from brloss_d2.data import check_coco_json
from brloss_d2.errors import InputError
from tests.helpers import coco_files as files


def check(folder: Path, data):
    return check_coco_json(files.write(folder, data), str(folder), key="data.val")


def message(folder: Path, data) -> str:
    with pytest.raises(InputError) as error:
        check(folder, data)
    assert str(error.value).startswith("data.val=")
    return str(error.value)


def spoilt(section: str, index: int, **changes):
    """The good dataset with changes in one record; None removes a key."""
    data = files.content()
    record = data[section][index]
    record.update(changes)
    data[section][index] = {k: v for k, v in record.items() if v is not None}
    return data


def test_counts_what_is_there(tmp_path):
    data = files.content(images=4)
    data["annotations"] += [
        files.annotation(10, 1, category=7, box=[5, 5, 0, 4]),
        files.annotation(11, 1, category=7, box=[5, 5, 4, 0]),
        files.annotation(12, 1, category=7, iscrowd=1),
        files.annotation(13, 1, category=7),
        files.annotation(14, 1, category=7, box=[31, 5, 4, 4]),
    ]
    summary = check(tmp_path, data)
    assert summary.categories == {2: "bolt", 7: "nut"}
    assert list(summary.categories) == [2, 7]
    assert (summary.num_classes, summary.images, summary.annotations) == (2, 4, 8)
    assert (summary.boxes, summary.objects) == (4, {2: 2, 7: 2})
    assert summary.crowd == 1
    assert summary.dropped["without area"] == 2
    assert summary.dropped["outside of the image"] == 1
    assert summary.images_without_objects == 1


def test_an_image_with_nothing_but_unusable_boxes_is_without_objects(tmp_path):
    data = files.content(images=2)
    data["annotations"] = [
        files.annotation(1, 1, box=[0, 0, 0, 0]),
        files.annotation(2, 2, iscrowd=1),
    ]
    assert check(tmp_path, data).images_without_objects == 2


def test_annotation_id_zero_is_accepted(tmp_path):
    """The evaluators number annotations from 1 themselves."""
    assert check(tmp_path, spoilt("annotations", 0, id=0)).annotations == 2


def test_file_names_may_contain_folders(tmp_path):
    (tmp_path / "a").mkdir()
    data = spoilt("images", 0, file_name="a/1.png")
    assert check(tmp_path, data).images == 3


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json: this file does not exist"):
        check_coco_json(str(tmp_path / "nowhere.json"), str(tmp_path))
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for name, expected in {
        "": "is a folder",
        "loop": "a link that leads nowhere",
        "pipe": "a device, pipe or socket",
        "a.json,b.json": "several files have to be merged",
    }.items():
        with pytest.raises(InputError, match=expected):
            check_coco_json(str(tmp_path / name), str(tmp_path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "is empty"),
        (b'{"images": [', "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[1, 2]", "got a list"),
        (b'[{"image_id": 1, "score": 0.5}]', "got a list. These are detections"),
        (b'{"shapes": [], "imagePath": "a"}', "imagePath.*It is of labelme, for one image"),
        (b'{"images": [1], "images": []}', "the key 'images' occurs twice"),
        (b"{}", r"no key images, annotations, categories \(keys found: none\)"),
        (b'{"images": [], "categories": []}', "no key annotations"),
        (b'{"images": {}, "annotations": [], "categories": []}', "'images' is not a list"),
        (b'{"images": [3], "annotations": [], "categories": []}', "'images' is not a list"),
    ],
)
def test_not_coco(tmp_path, text, expected):
    path = tmp_path / "bad.json"
    path.write_bytes(text)
    with pytest.raises(InputError, match=expected):
        check_coco_json(str(path), str(tmp_path))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({**files.content(), "categories": []}, "no categories"),
        ({**files.content(), "images": []}, "no images"),
        (
            spoilt("categories", 0, name=None),
            r"1 of 2 categories have no name that is text: id 7 \(no name\)",
        ),
        (spoilt("categories", 0, id="x"), "1 of 2 categories have no integer id: id x"),
        (spoilt("categories", 0, id=2), "1 of the ids of categories occur more than once: 2"),
        (spoilt("images", 0, id=None), "1 of 3 images have no integer id"),
        (spoilt("images", 0, id=2), "1 of the ids of images occur more than once: 2"),
        (
            spoilt("images", 1, file_name=None),
            r"1 of 3 images have no file_name that is text: id 2 \(no file_name\)",
        ),
        (spoilt("images", 1, height=None), "no positive height and width"),
        (spoilt("images", 1, width=0), "no positive height and width"),
        (spoilt("images", 1, width="9px"), r"no positive height and width .* \(width '9px'\)"),
        (spoilt("annotations", 0, id=None), "1 of 2 annotations have no integer id: number them"),
        (spoilt("annotations", 0, id=2), "1 of the ids of annotations occur more than once: 2"),
        (spoilt("annotations", 0, image_id=99), r"id 1 \(image_id 99\)"),
        (spoilt("annotations", 0, image_id="1.0"), r"its ids are 1, 2, 3\): id 1 \(image_id '1.0"),
        (spoilt("annotations", 0, bbox=[9, 9, -5, 4]), "negative width .* the upper left corner"),
        (spoilt("annotations", 0, bbox=[9, 9, 5, -4], iscrowd=1), "negative width or height"),
        (spoilt("annotations", 0, bbox="1, 2, 3, 3"), "but text: write numbers"),
        (spoilt("annotations", 0, segments_info=[]), "panoptic segmentation: export"),
        (spoilt("annotations", 0, image_id=[1]), "belong to images that the file does not list"),
        (spoilt("annotations", 0, category_id=5), r"id 1 \(category_id 5\)"),
        (spoilt("annotations", 0, category_id=None), "name categories that the file does not"),
        (spoilt("annotations", 0, bbox=None), r"no bbox of 4 finite numbers .* \(no bbox\)"),
        (spoilt("annotations", 0, bbox=[]), "no bbox of 4 finite numbers"),
        (spoilt("annotations", 0, bbox=[1, 2, 3]), "no bbox of 4 finite numbers"),
        (spoilt("annotations", 0, bbox=[1, 2, float("nan"), 3]), "no bbox of 4 finite numbers"),
        (spoilt("annotations", 0, bbox=[1, 2, float("inf"), 3]), "no bbox of 4 finite numbers"),
        (spoilt("annotations", 0, bbox=["1", 2, 3, 3]), "numbers .*, but text: write numbers"),
        (spoilt("annotations", 0, ignore=1), "marked 'ignore'"),
    ],
)
def test_bad_records(tmp_path, data, expected):
    with pytest.raises(InputError, match=expected):
        check(tmp_path, data)


def test_counts_offenders_and_names_the_first_five(tmp_path):
    data = files.content(images=10)
    for record in data["annotations"]:
        record["category_id"] = 4
    text = message(tmp_path, data)
    assert "9 annotations name categories" in text
    assert "id 5 (category_id 4), ..." in text
    assert "id 6" not in text


def test_names_missing_images(tmp_path):
    data = files.content(images=9)
    path = files.write(tmp_path, data)
    for number in range(2, 9):
        (tmp_path / f"{number}.png").unlink()
    with pytest.raises(InputError) as error:
        check_coco_json(path, str(tmp_path), key="data.val")
    text = str(error.value)
    assert text.startswith(f"7 of the 9 images of data.val are missing in {tmp_path}:")
    assert "\n  2.png\n" in text and "\n  6.png\n" in text
    assert "7.png" not in text and "and 2 more" in text
    assert "Set data.val_images=FOLDER" in text


def test_missing_image_folder(tmp_path):
    path = files.write(tmp_path, files.content())
    with pytest.raises(
        InputError, match=r"data\.train_images=.*nowhere: this folder does not exist"
    ):
        check_coco_json(path, str(tmp_path / "nowhere"))


def test_a_file_has_one_size(tmp_path):
    data = files.content()
    data["images"][1].update(file_name="1.png", width=7)
    with pytest.raises(
        InputError, match=r"1 images name a file .* with another size: id 2 \(1\.png"
    ):
        check_coco_json(files.write(tmp_path, data), str(tmp_path))
