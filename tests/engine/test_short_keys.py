"""Short keys of the command line: what each sets, and what is refused."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf

from brloss_d2.cli import train
from brloss_d2.engine import load_config
from brloss_d2.engine.config.short_keys import SHORT_KEYS, short_keys
from brloss_d2.errors import InputError
from brloss_d2.model_zoo import config_file
from tests.helpers import coco_files

ROOT = Path(__file__).parents[2]
SLIM = config_file("quick/faster_rcnn_R_18_FPN_brs_300it")
RECIPE = config_file("coco/atss_R_50_FPN_brs_1x")


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """A dataset of 40 images."""
    file = coco_files.write(tmp_path / "data", coco_files.content(images=40))
    return [f"data.train={file}", f"data.val={file}"]


def test_loss_of_a_packaged_config_is_its_sibling() -> None:
    cfg, _ = load_config(RECIPE, ["loss=focal"])
    expected, _ = load_config(RECIPE.replace("brs", "focal"))
    assert OmegaConf.to_yaml(cfg) == OmegaConf.to_yaml(expected)
    assert cfg.optimizer.lr == 0.01  # which belongs to the loss


def test_loss_of_another_config_replaces_all_criteria(tmp_path: Path) -> None:
    """Also in the config.yaml of a run, whose other keys stay."""
    cfg, _ = load_config(SLIM, ["train.seed=7"])
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    cfg, _ = load_config(str(tmp_path / "config.yaml"), ["loss=ap"])
    sites = (cfg.model.proposal_generator, cfg.model.roi_heads.box_predictor)
    assert ["APLoss" in str(site.criterion.cls_loss._target_) for site in sites] == [True, True]
    assert cfg.train.seed == 7


@pytest.mark.parametrize(
    ("config", "given", "initial", "fixed"),
    [
        (RECIPE, [], "torchvision://mobilenet_v2", True),
        (RECIPE, ["train.init_checkpoint=own.pth"], "own.pth", True),
        (RECIPE, ["train.init_checkpoint="], "", False),
        (SLIM, [], "", False),
        (SLIM, ["train.init_checkpoint=own.pth"], "own.pth", True),
    ],
)
def test_a_backbone_brings_its_weights(
    config: str, given: list[str], initial: str, fixed: bool
) -> None:
    """From scratch its batch normalization learns statistics, else it keeps those of the file."""
    cfg, _ = load_config(config, ["backbone=mobilenet_v2", *given])
    assert cfg.train.init_checkpoint == initial
    backbone = cfg.model.backbone.bottom_up
    assert (backbone.name, backbone.fixed_stats) == ("mobilenet_v2", fixed)


def test_sizes_of_images_keep_their_proportions() -> None:
    cfg, _ = load_config(
        str(ROOT / "configs/coco/cascade_rcnn_R_50_FPN_brs_3x.py"), ["data.short_side=240"]
    )
    train = cfg.dataloader.train.mapper.augmentations[0]
    assert train.short_edge_length == [120, 140, 160, 180, 200, 220, 240]
    assert (train.max_size, cfg.dataloader.test.mapper.augmentations[0].max_size) == (333, 400)
    assert cfg.dataloader.test.mapper.augmentations[0].short_edge_length == 240
    cfg, _ = load_config(
        str(ROOT / "configs/coco/fovea_R_50_FPN_ap_500s_100e.py"), ["data.short_side=128"]
    )
    assert cfg.dataloader.train.mapper.augmentations[3].shape == [128, 128]


def test_epochs_set_the_schedule(data: list[str]) -> None:
    cfg, _ = load_config(RECIPE, [*data, "data.batch_size=4", "train.epochs=24"])
    assert cfg.dataloader.train.total_batch_size == 4
    # 10 iterations per epoch, and as many evaluations as in the 12 epochs of the recipe.
    assert (cfg.train.max_iter, cfg.train.eval_period, cfg.train.checkpointer.period) == (
        240,
        20,
        20,
    )
    assert cfg.lr_multiplier.warmup_length == 0.1  # instead of 500 iterations
    given = ["train.eval_period=7", "train.accumulate=2", "lr_multiplier.warmup_length=0.5"]
    cfg, _ = load_config(RECIPE, [*data, "data.batch_size=4", "train.epochs=2.5", *given])
    assert (cfg.train.max_iter, cfg.train.eval_period) == (13, 7)
    assert cfg.lr_multiplier.warmup_length == 0.5
    cfg, _ = load_config(SLIM, [*data, "train.epochs=300"])
    assert (cfg.train.max_iter, cfg.train.eval_period, cfg.lr_multiplier.warmup_length) == (
        3000,
        0,
        0.1,
    )


def test_the_effective_config_needs_no_short_keys(data: list[str], tmp_path: Path) -> None:
    keys = ["loss=rs", "data.short_side=64", "data.batch_size=2", "train.epochs=3"]
    cfg, _ = load_config(SLIM, [*data, *keys])
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    again, _ = load_config(str(tmp_path / "config.yaml"))
    LazyConfig.save(again, str(tmp_path / "again.yaml"))
    assert (tmp_path / "again.yaml").read_text() == (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("loss=brss", "loss=brss: .* Did you mean brs or rs"),
        ("loss=focal", "'focal' is for one-stage detectors"),
        ("loss=", "expected loss=NAME"),
        ("data.short_side=0", "an integer, at least 1"),
        ("data.batch_size=2.5", "an integer, at least 1"),
        ("train.epochs=nan", "a number above 0"),
        ("train.epochs=many", "a number above 0"),
        ("train.epoch=3", r"Did you mean train\.epochs"),
        ("data.batchsize=3", r"Did you mean data\.batch_size"),
    ],
)
def test_wrong_values(override: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        load_config(SLIM, [override])


def test_two_lengths_are_refused(data: list[str]) -> None:
    with pytest.raises(InputError, match=r"train\.epochs and train\.max_iter"):
        load_config(SLIM, [*data, "train.epochs=3", "train.max_iter=10"])


def test_every_key_is_explained() -> None:
    assert all(f"    {key}=" in (train.__doc__ or "") for key in SHORT_KEYS)
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert short_keys() in text, (
        "bring the table up to date with what this prints: python -c "
        "'from brloss_d2.engine.config.short_keys import short_keys; print(short_keys())'"
    )


def test_images_with_rare_classes_are_repeated(data: list[str], tmp_path: Path) -> None:
    """The second class is in the share 0.05 of the images: they come sqrt(0.2 / 0.05) times."""
    content = coco_files.content(images=40)
    for record in content["annotations"]:
        record["category_id"] = 7 if record["id"] in (3, 4) else 2
    data = [f"data.train={coco_files.write(tmp_path / 'rare', content)}"]
    cfg, _ = load_config(SLIM, ["data.repeat_rare=0.2", *data])
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    sampler = instantiate(LazyConfig.load(str(tmp_path / "config.yaml")).dataloader.train.sampler)
    order = sampler._get_epoch_indices(torch.Generator())
    counts = torch.bincount(order, minlength=40)
    assert counts[2:4].tolist() == [2, 2] and counts.sum() == 42
    for value in ("2", "0", "x"):
        with pytest.raises(InputError, match=r"data\.repeat_rare is"):
            load_config(SLIM, [f"data.repeat_rare={value}", *data])
