import coco_files as files
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from brloss_d2.data import check_registered_dataset
from brloss_d2.errors import InputError


@pytest.fixture
def register():
    """Register a name for the time of a test."""
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
    with pytest.raises(InputError, match=r"'zzzz'\. For own data .* data\.train=FILE\.json"):
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
