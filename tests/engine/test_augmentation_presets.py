"""`data.augment`: what the presets make of the configs."""

import numpy as np
import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from omegaconf import OmegaConf

from brloss_d2.data import MixingMapper, load_coco_dataset
from brloss_d2.engine import load_config
from brloss_d2.errors import InputError
from brloss_d2.model_zoo import config_file
from tests.helpers import coco_files as files

ATSS, YOLACT = "quick/atss_R_18_FPN_rs_300it", "coco/yolact_R_50_rs_55e"
MASKS = "quick/mask_rcnn_R_18_FPN_rs_300it"
RESIZES = ("ResizeShortestEdge", "Resize")
COLORS = ("RandomBrightness", "RandomContrast", "RandomSaturation")
STEPS = {
    "none": [],
    "light": [*COLORS, "RandomFlip"],
    "strong": ["PhotometricDistortion", "ResizeScale", "FixedSizeCrop", "RandomFlip"],
    "aerial": [
        *(*COLORS, "RandomFlip", "RandomFlip", "RandomRotation"),
        *("ResizeScale", "FixedSizeCrop"),
    ],
}


@pytest.fixture
def data(tmp_path):
    content = files.content(images=4)
    for record in content["annotations"]:
        record["segmentation"] = [[2.0, 3.0, 12.0, 3.0, 12.0, 11.0]]
    return f"data.train={files.write(tmp_path, content)}"


def names(cfg) -> list[str]:
    return [step._target_.rpartition(".")[2] for step in cfg.dataloader.train.mapper.augmentations]


@pytest.mark.parametrize("name", ["none", "light", "strong", "aerial"])
@pytest.mark.parametrize("config", [ATSS, MASKS, YOLACT])
def test_presets(config, name, data, tmp_path):
    cfg, _ = load_config(config_file(config), [f"data.augment={name}", data, "data.short_side=64"])
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    cfg = LazyConfig.load(str(tmp_path / "config.yaml"))
    records = instantiate(cfg.dataloader.train.dataset)
    mapper = instantiate(cfg.dataloader.train.mapper)
    assert isinstance(mapper, MixingMapper) == (name == "strong")
    np.random.seed(0)
    for record in records * 4:
        found = mapper(record)
        height, width = found["image"].shape[1:]
        assert found["instances"].has("gt_masks") == (config != ATSS)
        if config == YOLACT:
            assert (height, width) == (64, 64)
        elif name in ("none", "light"):
            assert min(height, width) in (46, 51, 55, 60, 64)
        else:
            assert max(height, width) <= 80
    assert [step for step in names(cfg) if step not in RESIZES] == STEPS[name]


def test_objects_are_pasted_if_there_are_masks():
    for config, prob in ((ATSS, None), (MASKS, 0.5)):
        cfg, _ = load_config(config_file(config), ["data.augment=strong"])
        assert cfg.dataloader.train.mapper.get("copy_paste") == prob
    assert cfg.dataloader.train.mapper.instance_mask_format == "bitmask"
    cfg, _ = load_config(
        config_file(MASKS), ["data.augment=strong", "dataloader.train.mapper.mosaic=0"]
    )
    assert cfg.dataloader.train.mapper.mosaic == 0


@pytest.mark.parametrize("name", ["strong", "aerial"])
def test_boxes_follow_masks_that_are_cut(name, data):
    """The lower part of a triangle is narrower than the cut box of the whole one."""
    opts = [f"data.augment={name}", data, "dataloader.train.mapper.instance_mask_format=bitmask"]
    mixing = ("mosaic", "copy_paste") if name == "strong" else ()
    opts += [f"dataloader.train.mapper.{way}=0" for way in mixing]
    cfg, _ = load_config(config_file(MASKS), opts)
    *records, without_objects = instantiate(cfg.dataloader.train.dataset)
    mapper = instantiate(cfg.dataloader.train.mapper)
    crop = T.CropTransform(0, 7, files.WIDTH, files.HEIGHT - 7)
    mapper.augmentations = T.AugmentationList([crop])
    for record in records:
        found = mapper(record)["instances"]
        (mask,) = found.gt_masks.tensor
        rows, columns = mask.nonzero().T
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert found.gt_boxes.tensor.tolist() == [expected]
        assert found.gt_boxes.tensor[0, 0] >= 7  # 2 before
    assert len(mapper(without_objects)["instances"]) == 0


def test_padding_belongs_to_no_mask(data, tmp_path):
    """YOLACT's images have one size, so that smaller ones are padded."""
    opts = ["data.augment=strong", data, "dataloader.train.mapper.mosaic=0"]
    cfg, _ = load_config(config_file(YOLACT), [*opts, "data.short_side=64"])
    cfg.dataloader.train.mapper.augmentations[1].update(min_scale=0.5, max_scale=0.5)
    cfg.dataloader.train.mapper.augmentations[3].prob = 0.0
    records = instantiate(cfg.dataloader.train.dataset)
    mapper = instantiate(cfg.dataloader.train.mapper)
    found = mapper(records[0])
    masks = found["instances"].gt_masks.tensor
    assert masks.any() and not masks[:, 32:].any() and not masks[..., 32:].any()


@pytest.mark.parametrize(
    ("config", "name", "expected"),
    [
        (ATSS, "strogn", r"data.augment=strogn: expected none, light, strong, aerial\. Did you m"),
    ],
)
def test_what_is_refused(config, name, expected):
    with pytest.raises(InputError, match=expected):
        load_config(config_file(config), [f"data.augment={name}"])


def test_augmentation_of_another_kind_is_refused(tmp_path):
    cfg, _ = load_config(config_file(ATSS))
    cfg.dataloader.train.mapper.augmentations = []
    (tmp_path / "own.yaml").write_text(OmegaConf.to_yaml(cfg))
    LazyConfig.save(cfg, str(tmp_path / "own.yaml"))
    with pytest.raises(InputError, match="resizes images in a way of its own"):
        load_config(str(tmp_path / "own.yaml"), ["data.augment=light"])


def test_the_dataset_is_found_by_name(data, tmp_path):
    cfg, _ = load_config(config_file(ATSS), ["data.augment=strong", data])
    node = cfg.dataloader.train.dataset
    assert node._target_ is load_coco_dataset or str(node._target_).endswith("load_coco_dataset")
    assert cfg.dataloader.train.mapper.names == "custom_train"
