"""The key `test.augmentation`: what it adds to a config, in evaluation and in prediction."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from brloss_d2.checkpoint import Checkpointer
from brloss_d2.engine import load_config
from brloss_d2.engine.config.values import check_parts
from brloss_d2.engine.hooks.evaluation import Evaluation
from brloss_d2.errors import InputError
from brloss_d2.model_zoo import config_file
from brloss_d2.prediction import Predictor, export_torchscript

RECIPE = config_file("coco/atss_R_50_FPN_brs_1x")
SLIM = config_file("quick/atss_R_18_FPN_brs_300it")
SMALL = ["model.num_classes=3", "data.short_side=64", "model.postprocessor.select.topk=100"]


def test_it_takes_over_the_sizes_of_the_test_images(tmp_path: Path) -> None:
    cfg, _ = load_config(RECIPE, ["test.augmentation=True"])
    node = cfg.dataloader.test_augmentation
    assert (node.short_edge_length, node.max_size, node.flip) == (800, 1333, True)
    sizes = [scale * node.short_edge_length for scale in node.scales]
    assert sizes == [400, 500, 600, 700, 800, 900, 1000, 1100, 1200]
    assert list(cfg.dataloader.test.mapper.augmentations) == []
    assert cfg.dataloader.train == load_config(RECIPE)[0].dataloader.train
    # In the config of a run, and with other keys.
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    again, _ = load_config(str(tmp_path / "config.yaml"), ["test.augmentation=[0.5, 1]"])
    options = {**again.dataloader.test_augmentation, "_target_": node._target_}
    assert options == {**node, "scales": [0.5, 1]}
    keys = [
        "data.short_side=400",
        "test.augmentation=[1]",
        "dataloader.test_augmentation.flip=False",
    ]
    other = load_config(RECIPE, keys)[0].dataloader.test_augmentation
    assert (other.short_edge_length, other.max_size) == (400, 666)
    assert (other.scales, other.flip) == ([1], False)


def test_nothing_changes_without_it() -> None:
    assert load_config(RECIPE, ["test.augmentation=False"])[0] == load_config(RECIPE)[0]


@pytest.mark.parametrize(
    "value", ["", "[]", "2", "[0]", "[1, x]", "[.inf]", "[true]", "{a: 1}", "["]
)
def test_wrong_values(value: str) -> None:
    with pytest.raises(InputError, match=r"test\.augmentation is .*: expected True, False or fact"):
        load_config(SLIM, [f"test.augmentation={value}"])


def test_images_that_are_resized_in_another_way(tmp_path: Path) -> None:
    cfg, _ = load_config(SLIM)
    cfg.dataloader.test.mapper.augmentations = []
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    with pytest.raises(InputError, match=r"whose only augmentation is ResizeShortestEdge"):
        load_config(str(tmp_path / "config.yaml"), ["test.augmentation=True"])


def test_evaluation(coco: list[str], tmp_path: Path) -> None:
    keys = [*coco, "test.augmentation=[0.5, 1]", f"train.output_dir={tmp_path}"]
    cfg, _ = load_config(SLIM, [*keys, "dataloader.test.num_workers=0"])
    model, sizes = instantiate(cfg.model).eval(), []
    model.register_forward_hook(lambda _, args, out: sizes.append(args[0][0]["image"].shape[1:]))
    results = Evaluation(cfg)(model)
    assert sizes == [(64, 64), (64, 64), (128, 128), (128, 128)]
    assert set(results) == {"bbox"} and not model.training


def test_prediction(tmp_path: Path) -> None:
    torch.manual_seed(0)
    cfg, _ = load_config(SLIM, SMALL)
    Checkpointer(instantiate(cfg.model), str(tmp_path)).save("a")
    image = np.random.default_rng(0).integers(256, size=(150, 200, 3), dtype=np.uint8)

    def predictor(*keys: str) -> Predictor:
        return Predictor.load(SLIM, tmp_path / "a.pth", overrides=[*SMALL, *keys], device="cpu")

    (plain,) = predictor()([image])
    (same,) = predictor("test.augmentation=[1]", "dataloader.test_augmentation.flip=False")([image])
    assert len(plain) > 10
    np.testing.assert_allclose(same.boxes, plain.boxes, rtol=0, atol=1e-3)
    np.testing.assert_allclose(same.scores, plain.scores, rtol=0, atol=1e-6)
    several = predictor("test.augmentation=[0.75, 1]")
    assert several([image])[0].scores.max() >= plain.scores.max()
    with pytest.raises(InputError, match="cannot be exported"):
        export_torchscript(several, image, str(tmp_path / "a.ts"))


@pytest.mark.parametrize("name", ["quick/yolact_R_18_rs_300it", "quick/solov2_R_18_FPN_rs_300it"])
def test_masks_of_whole_images_are_refused_before_training(name: str) -> None:
    cfg, _ = load_config(config_file(name), ["test.augmentation=True"])
    with pytest.raises(InputError, match="also predicts pred_masks: switch it off"):
        check_parts(cfg)
