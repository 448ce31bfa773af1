"""The keys `test.tile` and `test.overlap`: what they add to a config, in evaluation too."""

from pathlib import Path

import pytest
from detectron2.config import LazyConfig, instantiate

from brloss_d2.engine import load_config
from brloss_d2.engine.hooks.evaluation import Evaluation
from brloss_d2.errors import InputError
from brloss_d2.model_zoo import config_file

SLIM = config_file("quick/atss_R_18_FPN_brs_300it")


def test_the_tiles_are_resized_as_the_test_images_were(tmp_path: Path) -> None:
    side = "dataloader.test.mapper.augmentations.0.short_edge_length=64"
    cfg, _ = load_config(SLIM, ["test.tile=300", "test.overlap=0.25", side])
    node = cfg.dataloader.test_augmentation
    assert (node.tile, node.overlap, node.augmentations[0].short_edge_length) == (300, 0.25, 64)
    assert list(cfg.dataloader.test.mapper.augmentations) == []
    # In the config of a run.
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    again, _ = load_config(str(tmp_path / "config.yaml"), ["test.tile=200"])
    node = again.dataloader.test_augmentation
    assert (node.tile, node.overlap, node.augmentations[0].short_edge_length) == (200, 0.25, 64)


def test_evaluation(coco: list[str], tmp_path: Path) -> None:
    keys = [*coco, "data.short_side=32", "test.tile=5", f"train.output_dir={tmp_path}"]
    cfg, _ = load_config(SLIM, [*keys, "dataloader.test.num_workers=0"])
    model, sizes = instantiate(cfg.model).eval(), []
    model.register_forward_hook(
        lambda _, args, out: sizes.append([x["image"].shape[1] for x in args[0]])
    )
    results = Evaluation(cfg)(model)
    assert sizes == [[32] * 4, [32]]  # four tiles of 5 x 5, and the image of 8 x 8
    assert set(results) == {"bbox"} and not model.training


@pytest.mark.parametrize("key", ["test.tile=0", "test.tile=a", "test.tile=1.5", "test.tile="])
def test_wrong_sides(key: str) -> None:
    with pytest.raises(InputError, match=r"test\.tile is .*: expected an integer, at least 1"):
        load_config(SLIM, [key])


def test_what_does_not_go_together() -> None:
    with pytest.raises(InputError, match=r"test\.augmentation and test\.tile cannot both be set"):
        load_config(SLIM, ["test.tile=300", "test.augmentation=True"])
    with pytest.raises(InputError, match=r"tiles needs test\.tile, their side"):
        load_config(SLIM, ["test.overlap=0.3"])
    with pytest.raises(InputError, match=r"tiles needs a dataloader\.test\.mapper"):
        load_config(SLIM, ["test.tile=300", "dataloader.test.mapper=null"])
