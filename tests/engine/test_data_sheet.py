"""The look at the training data before a training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetFromList, build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from omegaconf import OmegaConf
from PIL import Image

from brloss_d2 import model_zoo
from brloss_d2.data import DetectionMapper
from brloss_d2.data.coco import load_coco_dataset
from brloss_d2.engine.data_sheet import anchor_sizes, look_at_data, note_on_sizes
from brloss_d2.errors import InputError
from tests.helpers import coco_files as files


def config(tmp_path: Path, *, sizes, masks: bool = False, image_format: str = "RGB"):
    content = files.content(images=5)
    for record in content["annotations"]:
        record["segmentation"] = [[2.0, 3.0, 12.0, 3.0, 12.0, 11.0]]
    content["annotations"][0]["iscrowd"] = 1
    file = files.write(tmp_path, content)
    mapper = L(DetectionMapper)(
        is_train=True,
        augmentations=[L(T.Resize)(shape=[40, 60]), L(T.RandomFlip)(horizontal=True)],
        image_format=image_format,
        use_instance_mask=masks,
    )
    dataset = L(load_coco_dataset)(names="a_sheet", json_file=file, image_root=str(tmp_path))
    train = L(build_detection_train_loader)(dataset=dataset, mapper=mapper, total_batch_size=1)
    model = {"anchors": L(DefaultAnchorGenerator)(sizes=sizes, aspect_ratios=[1], strides=[4])}
    return OmegaConf.create(
        {"model": model, "dataloader": {"train": train}}, flags={"allow_objects": True}
    )


@pytest.mark.parametrize("masks", [False, True])
def test_what_the_model_gets(tmp_path, masks):
    before = np.random.get_state()[1].copy()
    cfg = config(tmp_path, sizes=[[16, 32], [64]], masks=masks)
    sheet = look_at_data(cfg, ["bolt", "nut"], images=2)
    assert (np.random.get_state()[1] == before).all()
    assert sheet.counts == {"bolt": 1, "nut": 2}, "all images; crowds are no objects"
    assert sheet.anchors == [16, 32, 64]
    # Boxes of 10 x 8 pixels, twice as large.
    np.testing.assert_allclose(sheet.sizes, [320**0.5] * 3, rtol=1e-5)
    assert len(sheet.images) == 2
    for image, objects in sheet.images:
        assert image.shape == (40, 60, 3) and image.dtype == np.uint8 and (image == 90).all()
        if masks and len(objects.boxes):
            assert objects.masks.shape[1:] == (40, 60)
            assert objects.masks.any((1, 2)).all()
    again = look_at_data(cfg, ["bolt", "nut"], images=2)
    assert (again.images[0][1].boxes == sheet.images[0][1].boxes).all()


def test_the_order_of_channels(tmp_path):
    cfg = config(tmp_path, sizes=[[16]], image_format="BGR")
    for file in tmp_path.glob("*.png"):
        Image.new("RGB", (files.WIDTH, files.HEIGHT), "red").save(file)
    image, _ = look_at_data(cfg, [], images=1).images[0]
    assert image[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("size", "noted"), [(16, False), (18, True)])
def test_small_objects_are_noted(tmp_path, size, noted):
    sheet = look_at_data(config(tmp_path, sizes=[[size], [64]]), [])
    assert sheet.class_names == ["class 0", "class 1"]
    text = "100% of the objects are smaller than the smallest anchor (18 pixels) after resizing"
    assert note_on_sizes(sheet).startswith(text) == noted
    cfg = config(tmp_path, sizes=[[size]])
    del cfg.model.anchors
    assert note_on_sizes(look_at_data(cfg, [])) == ""


def test_other_mappers_are_not_shown(tmp_path):
    cfg = config(tmp_path, sizes=[[16]])
    cfg.dataloader.train.mapper = L(DatasetFromList)(lst=[])
    with pytest.raises(InputError, match="is no DatasetMapper"):
        look_at_data(cfg, [])


@pytest.mark.parametrize(
    ("name", "smallest", "count"),
    [
        ("quick/atss_R_18_FPN_rs_300it", 32, 15),
        ("coco/faster_rcnn_R_50_FPN_rs_1x", 32, 5),
        ("coco/retinanet_R_50_FPN_alrp_500s_100e", 32, 10),
        ("quick/solov2_R_18_FPN_rs_300it", None, 0),
    ],
)
def test_anchors_of_configs(name, smallest, count):
    found = list(anchor_sizes(model_zoo.get_config(name).model))
    assert len(found) == count and min(found, default=None) == smallest


class FloatMapper(DetectionMapper):
    """For the toy model, which takes means of its images."""

    def __call__(self, record):
        record = super().__call__(record)
        return {**record, "image": record["image"].float()}


MAPPER = f"{{_target_: {__name__}.FloatMapper, is_train: True, augmentations: [], "


@pytest.mark.parametrize("show", [True, False])
def test_a_run_has_a_sheet(train_net: Callable[..., Path], coco: list[str], show: bool) -> None:
    mapper = f"dataloader.train.mapper={MAPPER}image_format: RGB}}"
    out = train_net("train.max_iter=1", *coco, mapper, f"train.show_data={show}")
    assert (out / "data.png").exists() == show
    assert ("as the model gets them" in (out / "log.txt").read_text()) == show
