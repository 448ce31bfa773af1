"""Rare classes by leaving out objects: what stays, what is painted over, and the two halves."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from brloss_d2.data import check_coco_json, read_image, write_shapes
from tools.make_imbalanced import halves, main, surplus

pytest.importorskip("cv2")
CIRCLE = 1


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(folder, train=12, val=5, size=(64, 80))
    return folder


@pytest.fixture(scope="module")
def written(shapes, tmp_path_factory):
    output = tmp_path_factory.mktemp("rare") / "out"
    arguments = ["--data", str(shapes), "--rare", "circle", "--ratios", "1,3,100"]
    assert main([*arguments, "--output", str(output)]) == 0
    return output


def objects(file) -> list[dict]:
    return json.loads(file.read_text())["annotations"]


def test_each_ratio_has_the_same_other_objects_and_fewer_of_the_rare_class(shapes, written):
    original = objects(shapes / "annotations" / "instances_train.json")
    others = [x for x in original if x["category_id"] != CIRCLE]
    rare = {}
    for ratio in (1, 3, 100):
        found = objects(written / f"ratio_{ratio}.json")
        assert [x for x in found if x["category_id"] != CIRCLE] == others
        rare[ratio] = {x["id"] for x in found if x["category_id"] == CIRCLE}
        check_coco_json(str(written / f"ratio_{ratio}.json"), str(written / f"ratio_{ratio}"))
    assert rare[100] < rare[3] < rare[1]
    assert len(rare[3]) == round(len(others) / 2 / 3) and len(rare[100]) == 1


def test_what_is_left_out_is_painted_over_and_nothing_else(shapes, written):
    content = json.loads((written / "ratio_100.json").read_text())
    kept = {record["id"] for record in content["annotations"]}
    original = objects(shapes / "annotations" / "instances_train.json")
    painted = 0
    for image in content["images"]:
        after = read_image(written / "ratio_100" / image["file_name"]).astype(int)
        before = read_image(next((shapes / "train").glob(f"{image['file_name'][:-4]}.*"))).astype(
            int
        )
        gone = [x for x in original if x["image_id"] == image["id"] and x["id"] not in kept]
        changed = np.abs(after - before).max(axis=-1) > 0
        painted += changed.any()
        allowed = np.zeros_like(changed)
        for x, y, w, h in (record["bbox"] for record in gone):
            allowed[max(0, int(y) - 3) : int(y + h) + 4, max(0, int(x) - 3) : int(x + w) + 4] = True
        assert not (changed & ~allowed).any()
        assert changed.any() == bool(gone)
    assert painted > 3


def test_surplus_is_the_mean_of_the_other_classes_divided_by_the_ratio():
    records = [{"category_id": id_} for id_ in [1] * 50 + [2] * 30 + [3] * 10]
    gone = surplus(records, [1], [1, 2, 3], 4, seed=0)
    assert len(gone) == 45 and max(gone) < 50
    assert gone < surplus(records, [1], [1, 2, 3], 10, seed=0)
    assert gone != surplus(records, [1], [1, 2, 3], 4, seed=1)
    assert surplus(records, [3], [1, 2, 3], 1, seed=0) == set(), "no more than there are"


def test_halves_have_as_many_objects_of_each_class():
    content = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(40)],
        "categories": [{"id": 1}, {"id": 2}],
        "annotations": [{"image_id": n, "category_id": 1 + (n % 10 == 0)} for n in range(40)],
    }
    first, second = halves(content, seed=0)
    assert len(first) == len(second) == 20 and not first & second
    counts = [Counter(int(name[:-4]) % 10 == 0 for name in half) for half in (first, second)]
    assert counts[0] == counts[1]


def test_what_it_says_trains_with_compare_losses(shapes, written, capsys):
    output = written.parent / "again"
    assert main(["--data", str(shapes), "--rare", "circle", "--output", str(output)]) == 0
    text = capsys.readouterr().out
    assert (
        f"--data {output}/ratio_10.json,{output}/ratio_10,{output}/val.json,{shapes}/val," in text
    )
    assert text.rstrip().endswith("--rare circle")


def test_mistakes_of_the_user(shapes, written, tmp_path, capsys):
    good = {"--data": str(shapes), "--rare": "circle", "--output": str(tmp_path / "x")}
    for change, message in (
        ({"--rare": "hexagon"}, "expected some, not all, of circle"),
        ({"--rare": "circle,rectangle,triangle"}, "expected some, not all"),
        ({"--ratios": "0.5"}, "expected numbers of at least 1"),
        ({"--ratios": "a"}, "expected numbers of at least 1"),
        ({"--output": str(written)}, "exists: choose another"),
        ({"--data": str(shapes / "train")}, f"{shapes}/train: no labels of a known format"),
        ({"--data": f"{shapes}/annotations/instances_val.json"}, "val.json: expected a folder"),
        ({"--data": f"{shapes}/no"}, "no: there is no such folder"),
    ):
        arguments = [text for pair in {**good, **change}.items() for text in pair]
        assert main(arguments) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_it_says_which_ratios_and_objects_are_not_as_asked_for(tmp_path, capsys):
    """Three circles of ten other objects, two of them below a rectangle."""
    folder = tmp_path / "data"
    boxes = {
        1: [[2, 2, 8, 8], [22, 22, 8, 8], [40, 40, 8, 8]],
        2: [[0, 0, 11, 11], [20, 20, 12, 5]],
    }
    boxes[2] += [[x, 55, 3, 3] for x in range(0, 40, 5)]
    annotations = [
        {"image_id": 1, "category_id": class_, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for class_, own in boxes.items()
        for box in own
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 64}],
        "categories": [{"id": 1, "name": "big circle"}, {"id": 2, "name": "rectangle"}],
        "annotations": [{"id": n, **record} for n, record in enumerate(annotations, 1)],
    }
    val = {
        **content,
        "images": [{**content["images"][0], "id": n, "file_name": f"{n}.png"} for n in (1, 2)],
    }
    (folder / "annotations").mkdir(parents=True)
    for split, own in (("train", content), ("val", val)):
        (folder / split).mkdir()
        for image in own["images"]:
            Image.new("RGB", (64, 64)).save(folder / split / image["file_name"])
        file = folder / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps(own))
    command = ["--data", str(folder), "--rare", "big circle", "--output", str(tmp_path / "x y")]
    assert main([*command, "--ratios", "1,5,100", "--seed", "0"]) == 0
    text = capsys.readouterr().out
    assert "warning: ratio_1: big circle is 1 : 3.33, with 3 objects" in text
    assert "warning: ratio_100: big circle is 1 : 10, with 1 object\n" in text
    assert "ratio_5: big circle" not in text and "ratio_1: 0 of" not in text
    kept = json.loads((tmp_path / "x y" / "ratio_100.json").read_text())["annotations"][0]["bbox"]
    hidden = 2 - (kept in boxes[1][:2])  # one of these, half of it, is below a narrow rectangle
    assert f"warning: ratio_100: {hidden} of 2 objects left out remain visible" in text
    assert "--data '" in text and "--rare 'big circle'" in text
