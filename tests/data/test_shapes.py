import json

import numpy as np
import pytest
from PIL import Image

from brloss_d2.data import check_coco_json, write_shapes
from brloss_d2.data.synthetic.shape_images import CLASSES, Shape, draw_image
from brloss_d2.errors import InputError


def write(output, **kwargs) -> bool:
    return write_shapes(output, **{"train": 6, "val": 3, "size": (48, 64), **kwargs})


def annotations(output, split="train"):
    return json.loads((output / "annotations" / f"instances_{split}.json").read_text())


def test_writes_a_data_set_that_passes_the_check(tmp_path):
    output = tmp_path / "new" / "shapes"
    assert write(output)
    for split, images in (("train", 6), ("val", 3)):
        path = output / "annotations" / f"instances_{split}.json"
        summary = check_coco_json(str(path), str(output / split))
        assert summary.images == images
        assert tuple(summary.categories.values()) == CLASSES
        assert summary.boxes > 0
        assert not any(summary.dropped.values())
        ids = [record["id"] for record in json.loads(path.read_text())["annotations"]]
        assert min(ids) == 1, "pycocotools takes a match with annotation 0 for none"
    assert Image.open(output / "train" / "000001.jpg").size == (64, 48)
    assert [path.name for path in output.parent.iterdir()] == ["shapes"]  # no temporary folders


def test_annotations_are_consistent(tmp_path):
    write(tmp_path / "shapes")
    for record in annotations(tmp_path / "shapes")["annotations"]:
        polygon = np.array(record["segmentation"][0]).reshape(-1, 2)
        x, y, width, height = record["bbox"]
        assert polygon.min(axis=0) == pytest.approx([x, y])
        assert polygon.max(axis=0) == pytest.approx([x + width, y + height])
        assert x >= 0 and x + width <= 64 and y >= 0 and y + height <= 48
        assert 0.3 * width * height < record["area"] <= width * height


def test_is_deterministic_and_seeds_differ(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write(tmp_path / name, seed=seed)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 11
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        assert (tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes()
    contents = annotations(tmp_path / "a"), annotations(tmp_path / "a", "val")
    assert contents[0]["annotations"][0]["bbox"] != contents[1]["annotations"][0]["bbox"]


def test_some_images_have_no_objects_and_shapes_overlap_little():
    counts, classes = [], set()
    for seed in range(120):
        image, shapes = draw_image(np.random.default_rng(seed), 48, 64)
        assert image.shape == (48, 64, 3) and image.dtype == np.uint8
        counts.append(len(shapes))
        classes |= {shape.label for shape in shapes}
    assert 0 < counts.count(0) < 20
    assert max(counts) >= 5
    assert classes == {0, 1, 2}


def test_drawn_where_the_polygon_says():
    """Inside and outside a shape the pixels differ: geometry and picture agree."""
    for seed in range(30):
        image, shapes = draw_image(np.random.default_rng(seed), 96, 96)
        if shapes:
            center = shapes[-1].polygon.mean(axis=0).astype(int)  # the front shape is not covered
            inside = image[center[1] - 1 : center[1] + 2, center[0] - 1 : center[0] + 2]
            background = np.median(image.reshape(-1, 3), axis=0)
            assert np.linalg.norm(inside.mean(axis=(0, 1)) - background) > 25


def test_shape_box_and_area():
    shape = Shape(2, np.array([[1.0, 2.0], [5.0, 2.0], [1.0, 8.0]]))
    assert shape.box.tolist() == [1.0, 2.0, 5.0, 8.0]
    assert shape.area == pytest.approx(12.0)


def test_same_parameters_write_nothing_others_are_refused(tmp_path):
    output = tmp_path / "shapes"
    write(output)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert not write(output)
    with pytest.raises(InputError, match="has other parameters"):
        write(output, seed=3)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    assert write(output, seed=3, overwrite=True)
    assert annotations(output)["info"]["parameters"]["seed"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


def test_never_replaces_other_folders(tmp_path):
    output = tmp_path / "precious"
    output.mkdir()
    (output / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="is not a shapes dataset"):
        write(output, overwrite=True)
    assert [path.name for path in output.iterdir()] == ["thesis.txt"]


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("brloss_d2.data.synthetic.shapes.coco_annotation", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "shapes")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [{"train": 0}, {"val": -1}, {"seed": -1}, {"size": (8, 64)}])
def test_bad_numbers(tmp_path, bad):
    with pytest.raises(InputError, match="at least"):
        write(tmp_path / "shapes", **bad)


def test_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="Cannot write to"):
        write(tmp_path / "file" / "shapes")
