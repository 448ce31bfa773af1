"""The strong augmentation: images, boxes and masks move together."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from brloss_d2.data import BoxAwareMapper, Expand, MinIoUCrop, PhotometricDistortion
from brloss_d2.data.augmentation import CenterCropTransform

HEIGHT, WIDTH = 60, 80
BOXES = [[10, 20, 30, 45], [50, 5, 75, 25]]
COLORS = [(250, 0, 0), (0, 250, 0)]


@pytest.fixture(autouse=True)
def seed():
    np.random.seed(0)


def picture() -> np.ndarray:
    """Each box has a color of its own on gray."""
    image = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    for (x0, y0, x1, y1), color in zip(BOXES, COLORS, strict=True):
        image[y0:y1, x0:x1] = color
    return image


def apply(augmentation: T.Augmentation) -> tuple[np.ndarray, np.ndarray]:
    given = T.AugInput(picture(), boxes=np.array(BOXES, dtype=float))
    augmentation(given)
    return given.image, given.boxes


def extent(image: np.ndarray, color: tuple[int, ...]) -> list[int]:
    """The box of a color in an image."""
    rows, columns = np.nonzero((image == color).all(-1))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_expand():
    ratios = []
    for _ in range(20):
        image, boxes = apply(Expand(max_ratio=4.0, prob=1.0, fill=(1.4, 2, 3)))
        for box, color in zip(boxes, COLORS, strict=True):
            assert extent(image, color) == box.tolist()
        assert (image == (1, 2, 3)).all(-1).sum() == image[..., 0].size - HEIGHT * WIDTH
        ratios.append(image.shape[0] / HEIGHT)
        assert image.shape[1] / WIDTH == pytest.approx(ratios[-1], abs=0.02)
    assert 1 <= min(ratios) < 1.7
    assert 3.3 < max(ratios) <= 4


def test_expand_now_and_then():
    sizes = [apply(Expand(prob=0.5))[0].shape[0] for _ in range(100)]
    assert 30 < sizes.count(HEIGHT) < 70


def test_crop_moves_what_it_keeps_and_drops_what_it_cuts():
    cropped = kept = 0
    for _ in range(100):
        image, boxes = apply(MinIoUCrop())
        cropped += image.shape[:2] != (HEIGHT, WIDTH)
        height, width = image.shape[:2]
        for box, color in zip(boxes, COLORS, strict=True):
            if (box[2:] > box[:2]).all():
                kept += 1
                clipped = np.clip(box, 0, [width, height, width, height])
                assert extent(image, color) == clipped.tolist()
    assert cropped > 50
    assert 100 < kept < 200


def test_a_box_with_its_center_outside_has_no_area():
    crop = CenterCropTransform(20, 0, 40, 60)
    boxes = crop.apply_box(np.array([[10, 20, 29, 45], [10, 20, 31, 45], [50, 5, 75, 25.0]]))
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    assert areas.tolist() == [0, 21 * 25, 0]
    assert boxes[1].tolist() == [-10, 20, 11, 45]


def test_distortion_changes_colors_only():
    pytest.importorskip("cv2")
    changed = 0
    for _ in range(20):
        image, boxes = apply(PhotometricDistortion())
        assert image.shape == (HEIGHT, WIDTH, 3)
        assert image.dtype == np.uint8
        assert boxes.tolist() == BOXES
        changed += (image != picture()).any()
    assert changed > 10


def record(tmp_path, boxes=BOXES) -> dict:
    file = tmp_path / "image.png"
    Image.fromarray(picture()).save(file)
    annotations = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": i, "iscrowd": 0}
        for i, box in enumerate(boxes)
    ]
    crowd = {"bbox": [0, 0, 80, 60], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 1}
    return {
        "file_name": str(file),
        "height": HEIGHT,
        "width": WIDTH,
        "annotations": [*annotations, crowd],
    }


def mapper() -> BoxAwareMapper:
    return BoxAwareMapper(
        is_train=True,
        augmentations=[Expand(max_ratio=2.0), MinIoUCrop(), T.Resize((64, 64)), T.RandomFlip()],
        image_format="RGB",
    )


def test_mapper(tmp_path):
    """Boxes lie in the image and on their colors; now and then an object is cut off."""
    counts = []
    for _ in range(60):
        out = mapper()(record(tmp_path))
        assert out["image"].shape == (3, 64, 64)
        instances = out["instances"]
        counts.append(len(instances))
        boxes = instances.gt_boxes.tensor
        assert ((boxes >= 0) & (boxes <= 64)).all()
        for box, label in zip(boxes, instances.gt_classes, strict=True):
            x, y = ((box[:2] + box[2:]) / 2).long().clamp(max=63).tolist()
            color = out["image"][:, y, x]
            assert int(color.argmax()) == int(label)
    assert set(counts) == {1, 2}


def test_mapper_without_objects(tmp_path):
    for _ in range(20):
        out = mapper()(record(tmp_path, boxes=[]))
        assert len(out["instances"]) == 0
        assert out["instances"].gt_boxes.tensor.shape == (0, 4)
        assert out["image"].dtype == torch.uint8


def polygon(box: list[int]) -> list[list[float]]:
    """An L of the height and width of a box: its upper right quarter is missing."""
    x0, y0, x1, y1 = box
    x, y = (x0 + x1) // 2, (y0 + y1) // 2
    return [[x0, y0, x, y0, x, y, x1, y, x1, y1, x0, y1]]


def rle(box: list[int]) -> dict:
    return mask_util.merge(mask_util.frPyObjects(polygon(box), HEIGHT, WIDTH))


def record_with_masks(tmp_path, segmentation) -> dict:
    """Each object has a color of its own, its number in the red channel, on black."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    out = record(tmp_path)
    for i, box in enumerate(BOXES):
        image[mask_util.decode(rle(box)) > 0] = (100 * (i + 1), 0, 0)
        out["annotations"][i]["segmentation"] = segmentation(box)
    Image.fromarray(image).save(out["file_name"])
    return out


def mapper_of_masks(*augmentations: T.Augmentation, min_side: float = 0) -> BoxAwareMapper:
    return BoxAwareMapper(
        is_train=True,
        augmentations=list(augmentations),
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format="bitmask",
        min_side=min_side,
    )


@pytest.mark.parametrize("segmentation", [polygon, rle])
def test_masks_lie_on_their_objects(tmp_path, segmentation):
    """Pixel by pixel; an object that is cut off is gone with its mask, the others keep theirs."""
    read = mapper_of_masks(
        Expand(max_ratio=2.0, fill=(0, 0, 0)), MinIoUCrop(), T.RandomFlip(horizontal=True)
    )
    given, counts = record_with_masks(tmp_path, segmentation), []
    for _ in range(60):
        out = read(given)
        instances = out["instances"]
        counts.append(len(instances))
        assert len(instances.gt_masks) == len(instances)
        for mask, label in zip(instances.gt_masks.tensor, instances.gt_classes, strict=True):
            assert torch.equal(mask, out["image"][0] == 100 * (label + 1))
    assert set(counts) == {1, 2}


@pytest.mark.parametrize("segmentation", [polygon, rle])
def test_masks_of_a_resized_image(tmp_path, segmentation):
    """Whatever the two factors, every pixel becomes as many."""
    given = record_with_masks(tmp_path, segmentation)
    instances = mapper_of_masks(T.Resize((2 * HEIGHT, 3 * WIDTH)))(given)["instances"]
    for box, mask in zip(BOXES, instances.gt_masks.tensor, strict=True):
        expected = np.kron(mask_util.decode(rle(box)), np.ones((2, 3), int))
        assert (mask.numpy() == expected).all()


def test_small_objects_are_background(tmp_path):
    """Both sides have to exceed `min_side` in the image file, whatever size it gets."""
    boxes = [[10, 20, 14, 45], [50, 5, 75, 10], [30, 40, 60, 44]]
    given = record_with_masks(tmp_path, polygon)
    given["annotations"] = record(tmp_path, boxes)["annotations"]
    for annotation in given["annotations"]:
        annotation["segmentation"] = polygon(annotation["bbox"])
    out = mapper_of_masks(T.Resize((300, 400)), min_side=4)(given)["instances"]
    assert out.gt_classes.tolist() == [1]
    assert out.gt_boxes.tensor.tolist() == [[250.0, 25.0, 375.0, 50.0]]
    assert len(given["annotations"]) == 4  # the record of the dataset stays as it is
