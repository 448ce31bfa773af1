import shutil

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from brloss_d2.data import check_registered_dataset
from brloss_d2.errors import InputError
from tests.helpers import coco_files as files


@pytest.fixture
def register():
    """Register a name for one test."""
    names = []

    def register(name, **metadata):
        names.append(name)
        DatasetCatalog.register(name, list)
        MetadataCatalog.get(name).set(**metadata)

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_unknown_name_gets_a_suggestion():
    with pytest.raises(InputError, match=r"'coco_2017_vall'\. Did you mean coco_2017_val or"):
        check_registered_dataset("coco_2017_vall")
    with pytest.raises(
        InputError, match=r"'zzzz'\. For a custom dataset .* data\.train=FILE\.json"
    ):
        check_registered_dataset("zzzz")


def test_missing_annotations_and_images(tmp_path, register, monkeypatch):
    path = files.write(tmp_path, files.content())
    register("test_no_json", json_file="/nowhere/x.json", image_root=str(tmp_path))
    register("test_no_images", json_file=path, image_root="/nowhere/images")
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    with pytest.raises(InputError, match=r"annotations .* looked for /nowhere/x\.json.*not set"):
        check_registered_dataset("test_no_json")
    monkeypatch.setenv("DETECTRON2_DATASETS", "/my/data")
    with pytest.raises(InputError, match=r"image folder .*/nowhere/images.*it is /my/data"):
        check_registered_dataset("test_no_images")


def test_accepts_what_is_there(tmp_path, register):
    register(
        "test_good", json_file=files.write(tmp_path, files.content()), image_root=str(tmp_path)
    )
    register("test_without_paths")
    check_registered_dataset("test_good")
    check_registered_dataset("test_without_paths")


@pytest.fixture
def cityscapes(tmp_path, register):
    """The smallest Cityscapes: an image with its ground truth, all files empty."""
    pytest.importorskip("cityscapesscripts")
    pytest.importorskip("shapely")
    image_dir, gt_dir = tmp_path / "leftImg8bit/train", tmp_path / "gtFine/train"
    for folder in (image_dir, gt_dir):
        (folder / "aachen").mkdir(parents=True)
    (image_dir / "aachen/a_leftImg8bit.png").touch()
    for suffix in ("polygons.json", "instanceIds.png", "labelIds.png"):
        (gt_dir / f"aachen/a_gtFine_{suffix}").touch()
    register(
        "test_city",
        image_dir=str(image_dir),
        gt_dir=str(gt_dir),
        evaluator_type="cityscapes_instance",
    )
    check_registered_dataset("test_city")
    return image_dir, gt_dir


def test_cityscapes_without_ground_truth(cityscapes):
    _, gt_dir = cityscapes
    (gt_dir / "aachen/a_gtFine_instanceIds.png").unlink()
    with pytest.raises(InputError, match=r"1 files .* first .*a_gtFine_instanceIds\.png.*gtFine_t"):
        check_registered_dataset("test_city")
    shutil.rmtree(gt_dir / "aachen")
    with pytest.raises(InputError, match="3 files of the ground truth of 1 images"):
        check_registered_dataset("test_city")
    shutil.rmtree(gt_dir)
    with pytest.raises(InputError, match=rf"ground truth of dataset .*looked for {gt_dir}"):
        check_registered_dataset("test_city")


def test_cityscapes_without_images_or_with_other_files(cityscapes):
    image_dir, _ = cityscapes
    (image_dir / "aachen/Thumbs.db").touch()
    with pytest.raises(InputError, match=r"aachen/Thumbs\.db is no \*_leftImg8bit\.png"):
        check_registered_dataset("test_city")
    shutil.rmtree(image_dir / "aachen")
    with pytest.raises(InputError, match=f"no images in {image_dir}"):
        check_registered_dataset("test_city")
    shutil.rmtree(image_dir)
    with pytest.raises(InputError, match=f"The images of dataset .*looked for {image_dir}"):
        check_registered_dataset("test_city")


def test_lvis_needs_the_images_of_coco(tmp_path, register):
    pytest.importorskip("lvis")
    (tmp_path / "coco/train2017").mkdir(parents=True)
    (tmp_path / "lvis.json").touch()
    for name in ("test_lvis_train", "test_lvis_val"):
        json_file, image_root = str(tmp_path / "lvis.json"), f"{tmp_path}/coco/"
        register(name, json_file=json_file, image_root=image_root, evaluator_type="lvis")
    check_registered_dataset("test_lvis_train")
    with pytest.raises(InputError, match=f"images of .*looked for {tmp_path}/coco/val2017"):
        check_registered_dataset("test_lvis_val")


def test_a_missing_package_is_named(cityscapes, monkeypatch):
    monkeypatch.setattr("brloss_d2.data.catalog.find_spec", lambda name: None)
    expected = "pip install --no-deps cityscapesscripts pyquaternion shapely"
    with pytest.raises(InputError, match=expected):
        check_registered_dataset("test_city")
