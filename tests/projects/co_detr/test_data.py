"""Augmentation of the published recipe: sizes, crops, and boxes that follow the image."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from brloss_d2.projects.co_detr.data import MinBoxSizeMapper, OneOf

CONFIGS = Path(__file__).parents[3] / "projects/co_detr/configs"
HEIGHT, WIDTH = 120, 200
BOX = [60, 40, 110, 90]


@pytest.fixture(autouse=True)
def seed():
    np.random.seed(0)


@pytest.fixture(scope="module")
def node():
    """Data loaders of the recipe."""
    cfg = LazyConfig.load(str(CONFIGS / "common/data.py"))
    return cfg.dataloader


def picture(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    return image


def record(folder: Path, boxes: list[list[float]], **more: int) -> dict:
    file = folder / "image.png"
    Image.fromarray(picture()).save(file)
    annotations = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": i, "iscrowd": 0}
        for i, box in enumerate(boxes)
    ]
    sizes = {"height": HEIGHT, "width": WIDTH, "image_id": 1}
    return {"file_name": str(file), "annotations": annotations, **sizes, **more}


def extent(image: np.ndarray) -> list[int]:
    """Box around the bright pixels."""
    rows, columns = np.nonzero(image[..., 0] > 127)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_one_of_several_policies():
    policies = [
        [T.Resize((10, 20))],
        [T.Resize((30, 40)), T.CropTransform(0, 0, 6, 5)],
    ]
    augmentation, shapes = OneOf(policies), []
    for _ in range(400):
        given = T.AugInput(picture())
        done = augmentation(given)
        shapes.append(given.image.shape[:2])
        assert done.apply_image(picture()).shape == given.image.shape
    assert set(shapes) == {(10, 20), (5, 6)}
    assert 160 < shapes.count((10, 20)) < 240
    with pytest.raises(ValueError, match="policies is empty"):
        OneOf([])


def test_sizes_and_crops_of_the_recipe(node):
    """Half of the images are whole, half are resized crops; all get one of 11 sizes."""
    flip, policies = (instantiate(a) for a in node.train.mapper.augmentations)
    assert isinstance(flip, T.RandomFlip) and flip.prob == 0.5
    shorts, ratios = [], []
    for _ in range(150):
        given = T.AugInput(np.zeros((320, 480, 3), np.uint8))
        policies(given)
        height, width = given.image.shape[:2]
        assert max(height, width) <= 1333
        shorts.append(min(height, width))
        ratios.append(width / height)
    assert {s for s in shorts if s % 32 == 0} == set(range(480, 801, 32))
    # A crop may be so long that the limit of 1333 pixels makes its short side smaller.
    assert sum(s % 32 == 0 for s in shorts) > 140
    whole = sum(abs(ratio - 1.5) < 0.01 for ratio in ratios)
    assert 50 < whole < 100
    assert min(ratios) < 1 < 1.2 < max(ratios)


def test_numbers_of_the_policies(node):
    whole, cropped = node.train.mapper.augmentations[1].policies
    (final,) = whole
    first, crop, last = cropped
    assert list(final.short_edge_length) == list(range(480, 801, 32))
    assert (final.max_size, final.sample_style, last) == (1333, "choice", final)
    assert (list(first.short_edge_length), first.max_size) == ([400, 500, 600], 4200)
    crop = instantiate(crop)
    for shape, low in (((500, 700), 384), ((300, 700), 300)):
        sizes = np.array([crop.get_crop_size(shape) for _ in range(3000)])
        assert sizes.min(0).tolist() == [low, 384]
        assert sizes.max(0).tolist() == [min(shape[0], 600), 600]
    test = node.test.mapper.augmentations
    assert [(a.short_edge_length, a.max_size) for a in test] == [(800, 1333)]
    assert node.train.dataset.filter_empty is False
    assert node.train.total_batch_size == 16


def test_boxes_move_with_the_image(node, tmp_path):
    mapper = instantiate(node.train.mapper)
    seen = 0
    for _ in range(20):
        mapped = mapper(record(tmp_path, [BOX]))
        image = mapped["image"].permute(1, 2, 0).numpy()
        boxes = mapped["instances"].gt_boxes.tensor
        assert mapped["instances"].image_size == image.shape[:2]
        seen += len(boxes)
        if len(boxes):  # blurred by resizing
            assert np.abs(boxes[0].numpy() - extent(image)).max() <= 2
        else:
            assert image.max() < 255
    assert seen >= 15


def test_crops_and_images_without_objects_are_kept(tmp_path):
    mapper = MinBoxSizeMapper(
        is_train=True,
        augmentations=[T.AugmentationList([FixedCrop(0, 0, 30, 30)])],
        image_format="RGB",
    )
    for boxes in ([BOX], []):
        mapped = mapper(record(tmp_path, boxes))
        assert mapped["image"].shape == (3, 30, 30)
        assert len(mapped["instances"]) == 0
        assert mapped["instances"].gt_boxes.tensor.shape == (0, 4)


class FixedCrop(T.Augmentation):
    def __init__(self, *box: int):
        self.box = box

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return T.CropTransform(*self.box)


def test_thin_boxes_are_dropped_before_resizing(node, tmp_path):
    """Boxes are measured in pixels of the original image, however large they become."""
    boxes = [[10, 10, 10.9, 30], [10, 10, 30, 10.5], [10, 10, 11, 11], BOX]
    given = record(tmp_path, boxes)
    mapper = instantiate(node.train.mapper)
    mapper.augmentations = T.AugmentationList([T.Resize((4 * HEIGHT, 4 * WIDTH))])
    assert mapper(given)["instances"].gt_classes.tolist() == [2, 3]
    assert len(given["annotations"]) == 4
    mapper.min_box_size = 0.0
    assert mapper(given)["instances"].gt_classes.tolist() == [0, 1, 2, 3]


def test_crowds_are_not_trained_on(node, tmp_path):
    given = record(tmp_path, [BOX, BOX])
    given["annotations"][0]["iscrowd"] = 1
    mapper = instantiate(node.train.mapper)
    mapper.augmentations = T.AugmentationList([])
    assert mapper(given)["instances"].gt_classes.tolist() == [1]


def test_no_annotations_in_inference(node, tmp_path):
    given = record(tmp_path, [])
    del given["annotations"]
    mapper = instantiate(node.train.mapper)
    mapper.is_train, mapper.augmentations = False, T.AugmentationList([])
    assert "instances" not in mapper(given)


def test_large_scale_jitter_fits_on_the_canvas(tmp_path: Path) -> None:
    """Images of a tenth of the canvas up to crops of all of it; boxes follow the image."""
    leaf = CONFIGS / "co_dino_5scale_R_50_focal_lsj_1x.py"
    cfg = LazyConfig.apply_overrides(LazyConfig.load(str(leaf)), ["model.canvas_size=160"])
    mapper = instantiate(cfg.dataloader.train.mapper)
    sides, centers = [], []
    for _ in range(60):
        found = mapper(record(tmp_path, [BOX]))
        image = found["image"].permute(1, 2, 0).numpy()
        height, width = image.shape[:2]
        sides.append(max(height, width))
        if len(found["instances"]) and (image[..., 0] > 127).any():
            box = found["instances"].gt_boxes.tensor[0]
            assert np.abs(box.numpy() - extent(image)).max() <= 2
            assert found["instances"].image_size == (height, width)
            centers.append(box[0].item())
    assert min(sides) < 40 and max(sides) == 160
    assert len(set(centers)) > 10
    (resize,) = instantiate(cfg.dataloader.test.mapper).augmentations.augs
    assert resize.get_transform(picture()).apply_image(picture()).shape == (96, 160, 3)
