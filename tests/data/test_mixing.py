"""Mosaics and pasted objects."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from brloss_d2.data import MixingMapper, load_coco_dataset
from tests.helpers import coco_files as files

SQUARE = [[4.0, 4.0, 14.0, 4.0, 14.0, 14.0, 4.0, 14.0]]  # of 30 x 20 pixels


@pytest.fixture
def records(tmp_path):
    """Images of different grays; each but the last has a square of its number as its color."""
    content = files.content(images=4)
    for record in content["annotations"]:
        record.update(bbox=[4, 4, 10, 10], segmentation=SQUARE, area=100)
    file = files.write(tmp_path, content)
    for number in range(1, 5):
        pixels = np.full((files.HEIGHT, files.WIDTH, 3), 100 + number, np.uint8)
        pixels[4:14, 4:14] = number
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return load_coco_dataset("mixed", file, str(tmp_path))


def mapper(**options) -> MixingMapper:
    masks = {"use_instance_mask": True, "instance_mask_format": "bitmask"}
    base = {"is_train": True, "augmentations": [], "image_format": "RGB", "names": "mixed"}
    return MixingMapper(**base, **masks, **options)


def mapped(records, **options):
    np.random.seed(0)
    found = mapper(**options)(records[0])
    image, objects = found["image"].numpy(), found["instances"]
    return image[0], objects.gt_boxes.tensor.numpy(), objects.gt_masks.tensor.numpy(), found


def test_nothing_is_mixed_without_probabilities(records):
    image, boxes, masks, _ = mapped(records)
    assert image.shape == (20, 30) and boxes.tolist() == [[4, 4, 14, 14]]
    assert (masks[0] == (image == 1)).all()


@pytest.mark.parametrize("rle", [False, True])
def test_mosaics(records, rle):
    if rle:
        for record in records:
            for item in record["annotations"]:
                mask = np.zeros((20, 30), np.uint8, order="F")
                mask[4:14, 4:14] = 1
                item["segmentation"] = mask_util.encode(mask)
    image, boxes, masks, record = mapped(records, mosaic=1.0)
    assert image.shape == (40, 60) and (record["height"], record["width"]) == (40, 60)
    assert boxes[0].tolist() == [4, 4, 14, 14], "the first image is at the upper left"
    assert (image[:20, :30] <= 101).all() and set(np.unique(image)) > {1, 101}
    for box, mask in zip(boxes, masks, strict=True):
        x0, y0, x1, y1 = box.astype(int)
        color = image[(y0 + y1) // 2, (x0 + x1) // 2]
        assert color < 5 and (image[mask] == color).all() and mask.sum() == 100


def test_images_of_other_shapes_keep_their_ratio(records, tmp_path):
    for record in records[1:]:
        Image.new("RGB", (20, 60), "red").save(record["file_name"])
        record.update(height=60, width=20, annotations=[])
    subject = mapper(mosaic=1.0)
    subject._records = records[1:]
    image = subject(records[0])["image"].numpy()
    red = image[0] == 255
    assert red.sum() == 3 * 20 * 6 and (image[0][~red & (image[0] > 101)] == 114).all()
    assert red[:20, 30:36].all(), "at the center"


def test_pasted_objects(records):
    subject = mapper(copy_paste=1.0)
    seen = set()
    for seed in range(12):
        np.random.seed(seed)
        found = subject(records[1])
        image, objects = found["image"][0].numpy(), found["instances"]
        assert image.shape == (20, 30)
        for box, mask in zip(objects.gt_boxes.tensor, objects.gt_masks.tensor.numpy(), strict=True):
            assert mask.any() and np.median(image[mask]) < 5
            y, x = np.nonzero(mask)
            around = [x.min(), y.min(), x.max() + 1, y.max() + 1]  # pixels; polygons are finer
            np.testing.assert_allclose(box, around, atol=1.01)
        masks = objects.gt_masks.tensor.sum(0)
        assert masks.max() <= 1, "what is hidden belongs to the upper object only"
        # What is left of objects that are dropped because they are hidden, and rims.
        assert (image[masks.numpy() == 0] < 50).sum() <= 30
        seen.add(len(objects))
    assert {1, 2} <= seen


def test_hidden_objects_are_dropped(records):
    subject = mapper(copy_paste=1.0)
    whole = [{**records[2]["annotations"][0], "segmentation": [[0.0, 0, 30, 0, 30, 20, 0, 20]]}]
    subject._records = [{**records[2], "annotations": whole}]
    counts = set()
    for seed in range(12):
        np.random.seed(seed)
        found = subject(records[0])
        areas = found["instances"].gt_masks.tensor.sum((1, 2)).tolist()
        assert all(area >= 30 for area in areas)
        counts.add((len(areas), min(areas) < 100))
    assert (1, False) in counts and (2, True) in counts


def test_crowds_and_images_without_objects(records):
    records[0]["annotations"][0]["iscrowd"] = 1
    image, boxes, _, _ = mapped(records, mosaic=1.0, copy_paste=1.0)
    assert image.shape == (40, 60) and [4, 4, 14, 14] not in boxes.tolist()
    empty = mapper(mosaic=1.0, copy_paste=1.0)
    empty._records = records[3:]
    assert len(empty(records[3])["instances"]) == 0


def test_the_same_numbers_give_the_same_image(records):
    first, second = (mapped(records, mosaic=0.5, copy_paste=0.5) for _ in range(2))
    assert (first[0] == second[0]).all() and (first[1] == second[1]).all()
