"""The converter as a program: files in, files out, messages."""

import json
import os
from argparse import Namespace
from collections import OrderedDict
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torchvision
from detectron2.config import LazyConfig, instantiate
from PIL import Image

from brloss_d2.checkpoint import Checkpointer, from_mmdetection
from brloss_d2.errors import InputError
from tests.helpers.golden_models import load, weights
from tests.helpers.golden_rcnn import small_faster_rcnn
from tests.helpers.programs import Programs

ROOT = Path(__file__).parents[2]
META = {"mmdet_version": "2.25.3", "CLASSES": ("a", "b"), "epoch": 12, "hook_msgs": {}}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return import_module("tools.convert_checkpoint")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A checkpoint as mmdetection saves it."""
    return save(tmp_path / "published.pth", weights("faster_brs"))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small detector as a config file."""
    file = tmp_path_factory.mktemp("config") / "config.yaml"
    LazyConfig.save(small_faster_rcnn("brs"), str(file))
    return file


def save(file: Path, state: dict, **meta: object) -> Path:
    counters = {"backbone.bn1.num_batches_tracked": torch.tensor(3)}
    state = OrderedDict(state, **counters)
    torch.save({"meta": {**META, **meta}, "state_dict": state, "optimizer": {"lr": 0.1}}, file)
    return file


def fails(tool: ModuleType, capsys: pytest.CaptureFixture, *args: object) -> str:
    assert tool.main([str(arg) for arg in args]) == 1
    captured = capsys.readouterr()
    assert not captured.out
    return captured.err.removeprefix("error: ")


def test_there_and_back(
    tool: ModuleType, published: Path, config: Path, capsys: pytest.CaptureFixture
) -> None:
    ours, back = published.with_name("ours.pth"), published.with_name("back.pth")
    assert tool.main([str(published), str(ours), "--config-file", str(config)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("faster_rcnn: 130 tensors, ") and f"brloss_d2 in {ours}" in shown
    assert tool.main([str(ours), str(back), "--config-file", str(config)]) == 0
    shown = capsys.readouterr().out
    assert f"names of mmdetection in {back}" in shown and "needs no conversion" in shown
    found = torch.load(back, weights_only=True)["state_dict"]
    expected = weights("faster_brs")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert sorted(os.listdir(published.parent)) == ["back.pth", "ours.pth", "published.pth"]


def test_what_training_saves_goes_back(tool: ModuleType, tmp_path: Path) -> None:
    model = instantiate(small_faster_rcnn("alrp").model)
    model.load_state_dict(from_mmdetection(weights("faster_brs"), "faster_rcnn"), strict=False)
    Checkpointer(model, str(tmp_path)).save("model_final", iteration=3)
    assert tool.main([str(tmp_path / "model_final.pth"), str(tmp_path / "back.pth")]) == 0
    found = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    expected = weights("faster_brs")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_train_net_evaluates_what_was_converted(
    programs: Programs, tool: ModuleType, published: Path, config: Path, tmp_path: Path
) -> None:
    """The detections of the published implementation, from its checkpoint and its image."""
    golden = load("faster_brs")
    image = golden.tensor("in/raw0").numpy()
    Image.fromarray(image).save(tmp_path / "0.png")
    (tmp_path / "val.json").write_text(json.dumps(coco_file(image.shape)))
    assert tool.main([str(published), str(tmp_path / "ours.pth")]) == 0
    overrides = {
        "train.init_checkpoint": tmp_path / "ours.pth",
        "train.output_dir": tmp_path / "out",
        "train.device": "cpu",
        "data.train": tmp_path / "val.json",
        "data.val": tmp_path / "val.json",
        "dataloader.test.num_workers": 0,
        "dataloader.test.mapper.augmentations.0.short_edge_length": min(image.shape[:2]),
    }
    options = (f"{key}={value}" for key, value in overrides.items())
    programs.train_net("--eval-only", *options, config=config)
    (results,) = (tmp_path / "out").rglob("coco_instances_results.json")
    found = sorted(json.loads(results.read_text()), key=lambda d: -d["score"])
    scores = torch.tensor([detection["score"] for detection in found])
    torch.testing.assert_close(scores, golden.tensor("test0/scores"), rtol=0, atol=1e-5)
    boxes = torch.tensor([detection["bbox"] for detection in found])
    boxes[:, 2:] += boxes[:, :2]
    torch.testing.assert_close(boxes, golden.tensor("test0/boxes"), rtol=0, atol=1e-3)
    labels = torch.tensor([detection["category_id"] - 1 for detection in found])
    assert torch.equal(labels, golden.tensor("test0/labels"))


def coco_file(shape: tuple[int, ...]) -> dict:
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [9, 9, 9, 9], "area": 81, "iscrowd": 0}
    return {
        "images": [{"id": 1, "file_name": "0.png", "height": shape[0], "width": shape[1]}],
        "annotations": [box],
        "categories": [{"id": i + 1, "name": f"class{i}"} for i in range(5)],
    }


def test_a_torchvision_backbone(tool: ModuleType, tmp_path: Path) -> None:
    resnet = torchvision.models.resnet50(weights=None)
    torch.save(resnet.state_dict(), tmp_path / "resnet50.pth")
    assert tool.main([str(tmp_path / "resnet50.pth"), str(tmp_path / "ours.pth")]) == 0
    cfg = LazyConfig.load(str(ROOT / "configs/coco/faster_rcnn_R_50_FPN_brs_1x.py"))
    model = instantiate(cfg.model)
    Checkpointer(model).load(str(tmp_path / "ours.pth"))
    found = model.backbone.bottom_up.res5[2].conv3.weight
    assert torch.equal(found, resnet.layer4[2].conv3.weight)


@pytest.mark.parametrize("value", [np.float64(0.3), np.zeros(2), {1, 2}, Namespace(lr=0.1)])
def test_plain_objects_in_the_file(tool: ModuleType, tmp_path: Path, value: object) -> None:
    file = save(tmp_path / "published.pth", weights("faster_brs"), best=value)
    assert tool.main([str(file), str(tmp_path / "ours.pth")]) == 0


def test_weights_of_a_wrapped_model(tool: ModuleType, tmp_path: Path) -> None:
    state = {f"module.{name}": weight for name, weight in weights("faster_brs").items()}
    torch.save({"model_state_dict": state}, tmp_path / "a.pth")
    assert tool.main([str(tmp_path / "a.pth"), str(tmp_path / "ours.pth")]) == 0


def test_code_in_the_file(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = save(tmp_path / "published.pth", weights("faster_brs"), best=torch.nn.Linear(1, 1))
    message = fails(tool, capsys, file, tmp_path / "ours.pth")
    assert "published.pth: it wants to run torch.nn.modules.linear.Linear" in message
    assert "save only its weights" in message and "weights_only" not in message
    assert not (tmp_path / "ours.pth").exists()


def test_refusals(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file, out = tmp_path / "a.pth", tmp_path / "b.pth"
    assert "Checkpoint missing" in fails(tool, capsys, file, out)
    file.write_bytes(b"nothing")
    assert "damaged" in fails(tool, capsys, file, out)
    torch.save({"meta": {}, "epoch": 3}, file)
    assert "holds no weights, but meta (dict), epoch (int)" in fails(tool, capsys, file, out)
    state = weights("faster_brs")
    save(file, {**state, "ema_backbone_conv1_weight": torch.zeros(1)})
    assert "1 left over (ema_backbone_conv1_weight)" in fails(tool, capsys, file, out)
    del state["neck.fpn_convs.0.conv.bias"]
    save(file, state)
    assert "1 missing (neck.fpn_convs.0.conv.bias)" in fails(tool, capsys, file, out)
    save(file, weights("faster_brs"))
    assert "mask_head" in fails(tool, capsys, file, out, "--architecture", "mask_rcnn")
    assert "no folder" in fails(tool, capsys, file, tmp_path / "no" / "b.pth")
    assert os.listdir(tmp_path) == ["a.pth"]


def test_a_shape_that_the_config_does_not_have(
    tool: ModuleType, tmp_path: Path, config: Path, capsys: pytest.CaptureFixture
) -> None:
    state = weights("faster_brs")
    state["rpn_head.rpn_conv.weight"] = torch.zeros(32, 32, 1, 1)
    file, out = save(tmp_path / "a.pth", state), tmp_path / "b.pth"
    message = fails(tool, capsys, file, out, "--config-file", config)
    assert "conv.weight (32, 32, 1, 1) instead of (32, 32, 3, 3)" in message
    assert not out.exists()


def test_what_a_published_config_says_otherwise(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    text = "norm = dict(mean=[103.53, 116.28, 123.675], to_rgb=False)\nstyle='caffe'"
    file = save(tmp_path / "a.pth", weights("faster_brs"), config=text)
    assert tool.main([str(file), str(tmp_path / "b.pth")]) == 0
    shown = capsys.readouterr().err
    assert "BGR" in shown and "stride_in_1x1=True" in shown


def test_an_unconverted_file_is_told_what_to_do(published: Path) -> None:
    model = instantiate(small_faster_rcnn("brs").model)
    with pytest.raises(InputError, match=r"mmdetection.*tools/convert_checkpoint\.py"):
        Checkpointer(model).load(str(published))
