import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper, build_detection_test_loader
from detectron2.structures import BitMasks, PolygonMasks
from PIL import Image

from brloss_d2.data import DetectionMapper, load_coco_dataset
from brloss_d2.errors import InputError, user_message
from tests.helpers import coco_files as files


def mapper(**kwargs) -> DetectionMapper:
    augmentations = kwargs.pop("augmentations", [T.RandomFlip()])
    return DetectionMapper(
        **{"is_train": True, "augmentations": augmentations, "image_format": "RGB", **kwargs}
    )


@pytest.fixture
def records(tmp_path):
    return load_coco_dataset("test_own", files.write(tmp_path, files.content()), str(tmp_path))


def test_maps_image_and_boxes(records):
    item = mapper(augmentations=[T.Resize((2 * files.HEIGHT, 2 * files.WIDTH))])(records[0])
    assert item["image"].shape == (3, 2 * files.HEIGHT, 2 * files.WIDTH)
    assert item["instances"].gt_boxes.tensor.tolist() == [[4.0, 6.0, 24.0, 22.0]]
    assert item["instances"].gt_classes.tolist() == [0]


def test_an_image_of_a_pixel_may_be_mirrored(records):
    """numpy calls it contiguous, with strides that torch refuses."""
    item = mapper(augmentations=[T.Resize((1, 1)), T.RandomFlip(1.0)])(records[0])
    assert item["image"].shape == (3, 1, 1)


@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L"])
def test_ordinary_images_are_mapped_as_by_detectron2(records, tmp_path, image_format):
    noise = np.random.default_rng(0).integers(0, 255, (files.HEIGHT, files.WIDTH, 3))
    Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "1.png")
    options = {
        "is_train": True,
        "augmentations": [T.RandomFlip(), T.ResizeShortestEdge(17)],
        "image_format": image_format,
    }
    items = []
    for kind in (DetectionMapper, DatasetMapper):
        np.random.seed(3)
        items.append(kind(**options)(records[0]))
    ours, theirs = items
    assert ours.keys() == theirs.keys() and torch.equal(ours["image"], theirs["image"])
    for name, value in theirs["instances"].get_fields().items():
        assert str(ours["instances"].get(name)) == str(value)


@pytest.mark.parametrize(
    ("mask_format", "kind"), [(None, None), ("polygon", PolygonMasks), ("bitmask", BitMasks)]
)
def test_an_image_without_objects_has_empty_instances(records, mask_format, kind):
    keywords = {
        "use_instance_mask": True,
        "instance_mask_format": mask_format,
        "recompute_boxes": True,
    }
    item = mapper(**(keywords if mask_format else {}))(records[2])
    instances = item["instances"]
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_classes.shape == (0,)
    assert instances.gt_classes.dtype == torch.int64
    if kind:
        assert isinstance(instances.gt_masks, kind)
        assert len(instances.gt_masks) == 0


def damage_nothing(path):
    path.write_bytes(b"")


def damage_text(path):
    path.write_text("<html>404</html>")


def damage_truncated(path):
    noise = np.random.default_rng(0).integers(0, 255, (files.HEIGHT, files.WIDTH, 3))
    Image.fromarray(noise.astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:500])


def damage_missing(path):
    path.unlink()


def damage_size(path):
    Image.new("RGB", (files.HEIGHT, files.WIDTH)).save(path)


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (damage_nothing, "Image file unreadable: {}"),
        (damage_text, "Image file unreadable: {}"),
        (damage_truncated, "Image file unreadable: {}"),
        (damage_missing, "Image file missing: {}"),
        (damage_size, "disagree about the size: {} has 20 x 30 pixels"),
    ],
)
def test_errors_name_the_file(records, tmp_path, damage, expected, is_train):
    damage(tmp_path / "1.png")
    with pytest.raises(InputError) as error:
        mapper(is_train=is_train)(records[0])
    assert expected.format(tmp_path / "1.png") in str(error.value)


def test_other_errors_stay_what_they_are(records):
    class Broken(T.Augmentation):
        def get_transform(self, image):
            raise OSError("not the fault of the file")

    with pytest.raises(OSError, match="not the fault of the file"):
        mapper(augmentations=[Broken()])(records[0])


def test_message_survives_a_worker_process(records, tmp_path):
    damage_text(tmp_path / "2.png")
    loader = build_detection_test_loader(
        dataset=records, mapper=mapper(is_train=False), num_workers=1
    )
    with pytest.raises(InputError) as error:
        list(loader)
    assert "Traceback" in str(error.value)  # what torch makes of it
    message = user_message(error.value)
    assert message.startswith(f"Image file unreadable: {tmp_path / '2.png'} (UnidentifiedImage")
    assert message.endswith("or remove it from the annotations.")


@pytest.mark.parametrize("text", ["one line", "two\n  lines: here", ""])
def test_a_plain_message_stays_as_it_is(text):
    assert user_message(InputError(text)) == text


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, "1 of 1 objects of .*1.png have no mask"),
        ([[1, 2]], "have no mask, or none that is good"),
        ({"size": [20, 30], "counts": [40, 500, 60]}, "set instance_mask_format=bitmask"),
    ],
)
def test_masks_that_cannot_be_used_are_refused(tmp_path, mask, expected):
    data = files.content()
    data["annotations"][0]["segmentation"] = mask
    records = load_coco_dataset("test_masks", files.write(tmp_path, data), str(tmp_path))
    assert len(mapper()(records[0])["instances"]) == 1
    with pytest.raises(InputError, match=expected):
        mapper(use_instance_mask=True)(records[0])
